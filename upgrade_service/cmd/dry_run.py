"""upgrade-service-engine dry-run: say what the steps of a plan would do on this host.

Nothing is done, and nobody but this host's own settings is asked. With a plan:

  openstack upgrade plan show first -f json >plan.json         (anywhere)
  upgrade-service-engine dry-run --plan plan.json              (on the host, as root)

or for one step:

  upgrade-service-engine dry-run --strategy package --kind upgrade_packages \\
      --params '{"projects": {"nova": "34.0.0"}, "release": "2026.2"}'
"""

import argparse
import json
import os
import sys
from typing import Any

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service import exception, model
from upgrade_service.engine import dry_run, settings


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser(
        'upgrade-service-engine dry-run',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument('--config-file', action='append', help='configuration file of the engine')
    top.add_argument('--plan', metavar='FILE', help='plan as JSON; - is the standard input')
    top.add_argument('--strategy', help='strategy of the one step to tell')
    top.add_argument('--kind', choices=sorted(model.KINDS), help='its kind')
    top.add_argument('--project', help='its project, if it is about one')
    top.add_argument('--params', metavar='JSON', default='{}', help='its parameters')
    top.add_argument('--undo', action='store_true', help='tell how it would be undone')
    return top


def _steps(args: argparse.Namespace, host: str) -> list[dict[str, Any]]:
    """Return the steps to tell.

    :raises Invalid: they cannot be read.
    """
    if args.plan is None:
        params = _json('params', args.params)
        direction = 'back' if args.undo else 'forward'
        return [{**vars(args), 'params': params, 'direction': direction}]
    try:
        text = sys.stdin.read() if args.plan == '-' else open(args.plan).read()
    except (OSError, UnicodeDecodeError) as e:
        raise exception.Invalid(field='--plan', rule=str(e)) from e
    plan = _json('plan', text)
    steps = [dict(step) for step in dry_run.steps_of(plan, host)]
    if not steps:
        raise exception.Invalid(field='--plan', rule=f'it has no step for host {host}')
    return steps


def _json(field: str, text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as e:
        raise exception.Invalid(field=f'--{field}', rule=f'it is not JSON: {e}') from e
    if not isinstance(found, dict):
        raise exception.Invalid(field=f'--{field}', rule='it must be a JSON object')
    return found


def main(argv: list[str] | None = None) -> int:
    """Tell; exit status 1 if a step would be refused or fail."""
    top = parser()
    args = top.parse_args(argv)
    if (args.plan is None) == (args.kind is None or args.strategy is None):
        top.error('give --plan, or --strategy and --kind')
    conf = cfg.ConfigOpts()
    options.parse(conf, [], args.config_file)
    engine, bad = conf.engine, False
    try:
        allowed = settings.Allowed(
            engine.host,
            engine.config_dir,
            os.path.abspath(engine.state_dir),
            settings.project_data(conf.conductor.projects_dir),
        )
        for told in dry_run.tell(_steps(args, engine.host), allowed, engine.host):
            bad |= told.refused
            print(told.title, *(f'    {line}' for line in told.lines), sep='\n')
    except exception.UpgradeError as e:
        print(f'upgrade-service-engine dry-run: {e}', file=sys.stderr)
        return 1
    return int(bad)
