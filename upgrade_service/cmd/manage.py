"""upgrade-service-manage: what is done on the controller itself, next to the database.

The schema, the signing keys, the service's place in keystone; the check of the audit trail;
and the break-glass verbs, which work while keystone and the message bus are down.
"""

import argparse
import json
import os
import pathlib
import pwd
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


def db_grants(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Print the GRANT statements of a database user that cannot change or delete events."""
    if not args.user.isidentifier():
        raise exception.Invalid(field='user', rule='letters, digits and _ only')
    db.configure(conf)
    for line in db.grants(args.user):
        print(line)
    return 0


def audit_verify(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Say whether the audit trail of one upgrade, or of all, is as it was written."""
    db.configure(conf)
    ctx, sound = context.system(), True
    for ident in [db.upgrade_of(ctx, args.upgrade)] if args.upgrade else db.audited(ctx):
        trail = db.verify(ctx, ident, _noted(args))
        verdict = 'NOT as they were written' if trail.wrong else 'whole'
        print(f'upgrade {ident}: {trail.events} events, {verdict}; head {trail.head}')
        for seq, what in trail.wrong:
            print(f'  event {seq}: {what}')
        sound = sound and not trail.wrong
    return 0 if sound else 1


def _noted(args: argparse.Namespace) -> tuple[int, str] | None:
    if args.head is None:
        return None
    number, _, head = args.head.partition(':')
    if not args.upgrade or not number.isdecimal() or not head:
        raise exception.Invalid(field='--head', rule='NUMBER:HASH, with the UPGRADE it is of')
    return int(number), head


def local_status(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Show how an upgrade stands, from the database alone."""
    row, ctx = _local(conf, args)
    lease = max(0, row['lease_until'] - db.now(ctx)) / 1000
    print(f'upgrade {row["id"]} ({row["name"] or "no name"}) to {row["to_release"]}')
    print(f'  state {row["state"]}, direction {row["direction"]}, next {row["next"] or "-"}')
    print(f'  owner {row["owner"] or "none"}, epoch {row["epoch"]}, lease {lease:.0f} s')
    for name in ('blocked_reason', 'gate', 'message'):
        if row[name]:
            print(f'  {name}: {row[name]}')
    steps = row['counters'].get('steps', {})
    print('  steps: ' + (', '.join(f'{n} {s}' for s, n in sorted(steps.items())) or 'none'))
    for state in ('dispatched', 'running', 'failed', 'unknown'):
        for s in db.step_list(ctx, row['id'], {'state': state}, limit=20):
            where = f' on {s["host"]}' if s['host'] else ''
            print(f'  {state}: step {s["ord"]} {s["kind"]}{where}, attempt {s["attempt"]}')
    return 0


def local_pause(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Begin nothing new in an upgrade; what is in flight ends. Audited like any pause."""
    return _local_verb(conf, args, 'pause')


def local_cancel(conf: cfg.ConfigOpts, args: argparse.Namespace) -> int:
    """Stop an upgrade and put its healthy hosts back into service. Audited like any cancel."""
    return _local_verb(conf, args, 'cancel')


def _local(
    conf: cfg.ConfigOpts, args: argparse.Namespace
) -> tuple[dict[str, Any], context.RequestContext]:
    """Break-glass: neither keystone nor the message bus is asked, only the database."""
    db.configure(conf)
    user = f'local:{pwd.getpwuid(os.getuid()).pw_name}'
    ctx = context.RequestContext(user_id=user, is_admin=True)
    return db.upgrade_get(ctx, args.upgrade), ctx


def _local_verb(conf: cfg.ConfigOpts, args: argparse.Namespace, verb: str) -> int:
    before, ctx = _local(conf, args)
    row = db.upgrade_verb(ctx, before['id'], verb, body={'reason': args.reason})
    print(
        f'upgrade {row["id"]}: {before["state"]} -> {row["state"]}, next {row["next"] or "-"}; '
        f'recorded as {ctx.actor}. Its conductor acts within some seconds.'
    )
    return 0


_UPGRADE = ('upgrade', {'help': 'ID of the upgrade, or its name'})
_REASON = ('--reason', {'default': 'break-glass', 'help': 'why, for the audit trail'})


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
        'grants': (db_grants, (('user', {'help': 'name of the database user'}),)),
    },
    'keys': {'create': (keys_create, ()), 'list': (keys_list, ())},
    'agent': {'enroll': (agent_enroll, (('host', {'help': 'name of the host'}),))},
    'audit': {
        'verify': (
            audit_verify,
            (
                ('upgrade', {'nargs': '?', 'help': 'ID or name; without it, all upgrades'}),
                (
                    '--head',
                    {'metavar': 'NUMBER:HASH', 'help': 'an event and its hash, noted before'},
                ),
            ),
        ),
    },
    'local': {
        'status': (local_status, (_UPGRADE,)),
        'pause': (local_pause, (_UPGRADE, _REASON)),
        'cancel': (local_cancel, (_UPGRADE, _REASON)),
    },
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


def main(argv: list[str] | None = None, conf: cfg.ConfigOpts = cfg.CONF) -> int:
    """Run one command."""
    args = parser().parse_args(argv)
    options.parse(conf, [], args.config_file)
    try:
        result: int = args.function(conf, args)
        return result
    except (exception.UpgradeError, OSError) as e:
        print(f'upgrade-service-manage: {e}', file=sys.stderr)
        return 1
