"""Run a simulated cloud and the engines of its hosts, on the message bus of a config file.

Arguments: the file, and a folder with `cloud.json`; the engines start once `bundles.json` is
there. They have no database: like real ones, they know what their bundle says.
"""

import json
import os
import pathlib
import sys
import time

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg
import yaml

from upgrade_service import conf as options
from upgrade_service.engine import manager
from upgrade_service.simulator import simulator, spec


def settings(folder: pathlib.Path, url: str) -> pathlib.Path:
    """Write what the engines may do; return where."""
    place = folder / 'engine.d'
    place.mkdir(mode=0o700)
    allowed = {'simulated': {'url': url}, 'scripted': {'url': url, 'trace': f'{folder}/trace'}}
    for strategy, told in allowed.items():
        (place / f'{strategy}.yaml').write_text(yaml.safe_dump(told))
        os.chmod(place / f'{strategy}.yaml', 0o600)
    return place


def main() -> None:
    """Run until killed."""
    config, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    options.parse(cfg.CONF, [], [config])
    told = json.loads((folder / 'cloud.json').read_text())
    cloud = simulator.Simulator(spec.default_spec(**told['spec']), speed=told['speed'])
    cloud.start()
    (folder / 'clouds.yaml').write_text(yaml.safe_dump(cloud.clouds()))
    (folder / 'cloud.url').write_text(cloud.url)
    allowed = settings(folder, cloud.url)
    bundles = folder / 'bundles.json'
    while not bundles.exists():
        time.sleep(0.05)
    for host, bundle in json.loads(bundles.read_text()).items():
        state = folder / 'engines' / host
        manager.AgentManager(cfg.CONF, host, str(state), str(allowed), bundle=bundle).start()
    while True:
        time.sleep(60)


if __name__ == '__main__':
    main()
