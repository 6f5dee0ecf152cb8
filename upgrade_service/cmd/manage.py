"""upgrade-service-manage: the schema, the signing keys, the service's place in keystone.

Everything that has to be done on the controller before the service can be asked.
"""

import argparse
import json
import pathlib
import sys
from typing import Any

from upgrade_service.cmd import prepare

prepare()

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service import (
    context,
    exception,
    keys,
)
from upgrade_service.db import api as db
from upgrade_service.db import migration


def db_upgrade(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Bring the database schema to this version."""
    db.configure(conf)
    phases = [p for p in migration.BRANCHES if getattr(args, p)] or ['all']
    for phase in phases:
        migration.upgrade(phase)
    print(f'schema: {", ".join(sorted(migration.heads()))}')
    return 0


def db_version(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Print the schema's version; exit 1 if it is not the one this code wants."""
    db.configure(conf)
    print(', '.join(sorted(migration.heads())) or 'no schema')
    return 0 if migration.is_current() else 1


def keys_create(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Make a signing key for orders and use it from now on."""
    print(f'key {keys.create(conf)} in {conf.trust.keys_dir}')
    return 0


def keys_list(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """List the public keys that engines are told to trust."""
    for kid, public in keys.public(conf).items():
        print(kid, public)
    return 0


def agent_enroll(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Print an enrolment bundle for the engine of a host, without going through the API."""
    db.configure(conf)
    token, exp = db.enroll_token_create(context.system(), args.host, conf.trust.enroll_lifetime)
    print(
        json.dumps(
            {'token': token, 'host': args.host, 'keys': keys.public(conf), 'expires_at': exp}
        )
    )
    return 0


def service_register(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Create the service user, the roles and the catalogue entry of type `upgrade`."""
    from upgrade_service.conductor.cloud import catalog

    password = pathlib.Path(args.password_file).read_text().strip()
    for line in catalog.register(args.os_cloud, args.url, args.user, password, args.region):
        print(line)
    return 0


#: noun -> verb -> (function, its arguments)
COMMANDS: dict[str, dict[str, tuple[Any, tuple[tuple[str, dict[str, Any]], ...]]]] = {
    'db': {
        'upgrade': (
            db_upgrade,
            (
                ('--expand', {'action': 'store_true', 'help': 'only what old code tolerates'}),
                ('--contract', {'action': 'store_true', 'help': 'only what needs all code new'}),
            ),
        ),
        'version': (db_version, ()),
    },
    'keys': {'create': (keys_create, ()), 'list': (keys_list, ())},
    'agent': {'enroll': (agent_enroll, (('host', {'help': 'name of the host'}),))},
    'service': {
        'register': (
            service_register,
            (
                (
                    '--os-cloud',
                    {'required': True, 'help': 'clouds.yaml entry of an administrator'},
                ),
                ('--url', {'required': True, 'help': 'where the API answers, http://HOST:9899'}),
                ('--user', {'default': 'upgrade', 'help': 'name of the service user'}),
                ('--password-file', {'required': True, 'help': "file with the user's password"}),
                ('--region', {'default': None, 'help': "region; by default the cloud entry's"}),
            ),
        ),
    },
}


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    top = argparse.ArgumentParser('upgrade-service-manage', description=__doc__)
    top.add_argument('--config-file', action='append', help='configuration file')
    nouns = top.add_subparsers(metavar='NOUN', required=True)
    for noun, verbs in COMMANDS.items():
        summary = '; '.join((f.__doc__ or '').splitlines()[0] for f, _ in verbs.values())
        group = nouns.add_parser(noun, help=summary).add_subparsers(metavar='VERB', required=True)
        for verb, (function, arguments) in verbs.items():
            about = (function.__doc__ or '').strip()
            command = group.add_parser(verb, help=about, description=about)
            for name, kw in arguments:
                command.add_argument(name, **kw)
            command.set_defaults(function=function)
    return top


def main(argv: list[str] | None = None) -> int:
    """Run one command."""
    args = parser().parse_args(argv)
    conf = cfg.CONF
    options.parse(conf, [], args.config_file)
    try:
        result: int = args.function(conf, args)
        return result
    except (exception.UpgradeError, OSError) as e:
        print(f'upgrade-service-manage: {e}', file=sys.stderr)
        return 1
