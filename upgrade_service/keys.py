"""The deployment's signing keys: files in [trust] keys_dir, shared by its conductors.

``<kid>.key`` is private (mode 0600), ``<kid>.pub`` public, ``current`` names the kid in
use. Two kids are known at a time while keys are rotated.
"""

import datetime
import os
import pathlib

from oslo_config import cfg

from upgrade_service import exception, trust


def _folder(conf: cfg.ConfigOpts) -> pathlib.Path:
    return pathlib.Path(conf.trust.keys_dir)


def create(conf: cfg.ConfigOpts) -> str:
    """Make a new signing key and use it from now on; return its kid."""
    folder = _folder(conf)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    kid = datetime.datetime.now(datetime.UTC).strftime('k%Y%m%d%H%M%S%f')
    signer = trust.Signer.generate(kid)
    signer.save(folder / f'{kid}.key')
    (folder / f'{kid}.pub').write_text(signer.public + '\n')
    temporary = folder / '.current'
    temporary.write_text(kid + '\n')
    os.replace(temporary, folder / 'current')
    return kid


def signer(conf: cfg.ConfigOpts) -> trust.Signer:
    """Return the signer in use.

    :raises Untrusted: there is none yet.
    """
    folder = _folder(conf)
    try:
        kid = (folder / 'current').read_text().strip()
        return trust.Signer.load(folder / f'{kid}.key', kid)
    except FileNotFoundError as e:
        raise exception.Untrusted(
            reason=f'no signing key in {folder}; make one: upgrade-service-manage keys create'
        ) from e


def public(conf: cfg.ConfigOpts) -> dict[str, str]:
    """Return {kid: public key} that engines are to trust: the newest two."""
    found = sorted(_folder(conf).glob('*.pub'))[-2:]
    return {p.stem: p.read_text().strip() for p in found}
