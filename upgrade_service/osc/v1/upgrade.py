"""Commands on upgrades: make one, look at it, say what is to happen with it."""

import argparse
from collections.abc import Sequence
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command
import yaml

from upgrade_service.osc import columns, progress, proxy, resources, watch
from upgrade_service.osc.v1 import base

Row = dict[str, Any]


def add_upgrade(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names an upgrade."""
    parser.add_argument('upgrade', metavar='<upgrade>', help='Name or ID of the upgrade')


def add_accept(parser: argparse.ArgumentParser) -> None:
    """Add --accept."""
    parser.add_argument(
        '--accept',
        metavar='<code>',
        action='append',
        default=[],
        help='Start in spite of problems of this code, where they allow it; may be repeated',
    )


def load_policy(path: str) -> Row:
    """Read a policy file (YAML or JSON).

    :raises CommandError: it cannot be read, or is not a mapping.
    """
    try:
        with open(path, encoding='utf-8') as source:
            policy = yaml.safe_load(source)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as e:
        raise exceptions.CommandError(f'--policy {path}: {proxy.one_line(e)}') from e
    if not isinstance(policy, dict):
        raise exceptions.CommandError(
            f'--policy {path}: expected keys and values, as in `max_unavailable: 1`'
        )
    return policy


class CreateUpgrade(base.Act):
    """Plan an upgrade and, with --start, carry it out.

    To look first::

      openstack upgrade create prod --to 2026.2 --name first --wait
      openstack upgrade plan show first
      openstack upgrade start first --wait

    In one go::

      openstack upgrade create prod --to 2026.2 --start --wait --approve-ponr

    A policy file holds what differs from the defaults, for example::

      max_unavailable: 2
      canary: {hosts: 1, soak_seconds: 600}
      gates: [data_plane, finish]
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add target, selection, policy, and what to do with the plan."""
        parser = super().get_parser(prog_name)
        parser.add_argument('cluster', metavar='<cluster>', help='Name or ID of the cluster')
        parser.add_argument(
            '--to',
            metavar='<release>',
            required=True,
            help='Release to go to, such as 2026.2; see `upgrade path list`',
        )
        parser.add_argument('--name', metavar='<name>', help='Name of the upgrade')
        parser.add_argument(
            '--strategy',
            metavar='<strategy>',
            help='How hosts are upgraded; see `upgrade strategy list`',
        )
        parser.add_argument(
            '--type', choices=['service'], help='What is upgraded: the OpenStack services'
        )
        parser.add_argument('--policy', metavar='<file>', help='Policy file, YAML or JSON')
        for option, what in (
            ('--hosts', 'hosts'),
            ('--az', 'availability zones'),
            ('--projects', 'projects'),
        ):
            parser.add_argument(
                option, metavar='<name,name>', type=base.words, help=f'Only these {what}'
            )
        parser.add_argument(
            '--approve-ponr',
            action='store_true',
            help='Approve the gate before the points of no return now (administrators)',
        )
        parser.add_argument(
            '--start',
            action='store_true',
            help='Start it as soon as the plan is made, unless the plan has blocking problems',
        )
        add_accept(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Create it, start it, follow it."""
        if parsed_args.accept and not parsed_args.start:
            raise exceptions.CommandError('--accept goes with --start')
        made = self.api.ask('/upgrades', self._body(parsed_args))
        watcher = self.watcher(made['id'])
        watcher.upgrade = made
        if not (parsed_args.start or parsed_args.wait):
            return self.shown(made)
        upgrade = self.follow(watcher, 'plan')
        if self.status == watch.OK and parsed_args.start:
            upgrade = self._start(watcher, parsed_args)
        return self.shown(upgrade)

    def _body(self, args: argparse.Namespace) -> Row:
        body = {
            'cluster': args.cluster,
            'to_release': args.to,
            'name': args.name,
            'strategy': args.strategy,
            'type': args.type,
            'hosts': args.hosts,
            'azs': args.az,
            'projects': args.projects,
            'approve_ponr': args.approve_ponr or None,
            'policy': load_policy(args.policy) if args.policy else None,
        }
        return {k: v for k, v in body.items() if v is not None}

    def _start(self, watcher: watch.Watcher, args: argparse.Namespace) -> Row:
        ref = watcher.ref
        found = watcher.patient(lambda: self.api.problems(upgrade=ref))
        blocking = [
            p
            for p in found
            if p.get('severity') == 'blocking'
            and not (p.get('acceptable') and p.get('code') in args.accept)
        ]
        if blocking:
            for line in progress.problem_lines(blocking):
                self.say(line)
            name = base.name_of(watcher.upgrade)
            self.say(
                f'Upgrade {name} was not started: {len(blocking)} blocking problems; '
                f'it stays a draft'
            )
            self.status = watch.FAILED
            return watcher.upgrade
        key = proxy.new_key()
        watcher.patient(
            lambda: self.api.ask(f'/upgrades/{ref}/start', {'accept': args.accept}, key)
        )
        watcher.refresh()
        return self.follow(watcher, 'end') if args.wait else watcher.upgrade


class ListUpgrade(base.List):
    """List upgrades."""

    fields = (
        'id',
        'name',
        'cluster',
        'from_release',
        'to_release',
        'state',
        'progress',
        'created_at',
    )
    long_fields = (
        'strategy',
        'direction',
        'gate',
        'blocked_reason',
        'hosts',
        'eta_seconds',
        'started_at',
        'finished_at',
        'message',
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add filters."""
        parser = super().get_parser(prog_name)
        parser.add_argument('--cluster', metavar='<cluster>', help='Only those of this cluster')
        parser.add_argument('--state', metavar='<state>', help='Only those in this state')
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the upgrades."""
        return list(
            self.api.rows(
                resources.Upgrade,
                cluster=args.cluster,
                state=args.state,
                limit=args.limit,
                marker=args.marker,
            )
        )


class ShowUpgrade(base.Follow):
    """Show an upgrade: state, counts, hosts, what it waits for."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the upgrade."""
        parser = super().get_parser(prog_name)
        add_upgrade(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it."""
        return self.shown(self.api.upgrade(parsed_args.upgrade))


class WatchUpgrade(ShowUpgrade):
    """Follow an upgrade until it ends or waits for a person.

    Exit status 0: succeeded; 1: failed, blocked or cancelled; 3: it waits for a person. An
    API or keystone that is away is waited for. Ctrl-C ends the watching only.
    """

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Follow it."""
        watcher = self.watcher(parsed_args.upgrade)
        watcher.upgrade = self.api.upgrade(parsed_args.upgrade)
        watcher.ref = watcher.upgrade['id']
        watcher.skip_history()
        return self.shown(self.follow(watcher, 'end'))


class DeleteUpgrade(base.ApiMixin, command.Command):
    """Delete an upgrade that is a draft or has ended; its events are kept."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the upgrade."""
        parser = super().get_parser(prog_name)
        add_upgrade(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete it."""
        self.api.remove(f'/upgrades/{parsed_args.upgrade}')


class ListEvent(base.List):
    """List what happened in an upgrade, and who asked for it."""

    fields = ('seq', 'at', 'kind', 'step_id', 'attempt', 'actor')
    long_fields = ('detail', 'request_id', 'project_id', 'remote')
    paged = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add upgrade and --after."""
        parser = super().get_parser(prog_name)
        add_upgrade(parser)
        parser.add_argument(
            '--after',
            metavar='<seq>',
            type=int,
            default=0,
            help='Only events that follow this number',
        )
        parser.add_argument(
            '--limit', type=int, metavar='<n>', help='Show so many at most (default: all)'
        )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the events."""
        return list(
            self.api.rows(
                resources.Event, upgrade_ref=args.upgrade, after=args.after, limit=args.limit
            )
        )


class ShowReport(base.Show):
    """Show the report of an upgrade: what was done, how long it took, who asked for it.

    `-f json` gives the whole of it, with a line for each host, migration and request.

    Example: openstack upgrade report show first -f json
    """

    fields = (
        'upgrade', 'name', 'from_release', 'to_release', 'state', 'direction', 'message',
        'revision', 'started_at', 'finished_at', 'seconds', 'stages', 'hosts', 'migrations',
        'failed', 'retried', 'skipped', 'requests',
    )  # fmt: skip

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the upgrade."""
        parser = super().get_parser(prog_name)
        add_upgrade(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it; in a table each list is told in lines."""
        found = self.api.document(f'/upgrades/{parsed_args.upgrade}/report')
        if parsed_args.formatter == 'table':
            lines = {k: progress.report_lines(k, v) for k, v in found.items()}
            found = {k: '\n'.join(v) if isinstance(v, list) else v for k, v in lines.items()}
        return columns.card(found, self.fields)
