"""Commands on engines' identities and on what engines can do."""

import argparse
from collections.abc import Sequence
import os
from typing import Any

from osc_lib import exceptions
from osc_lib.command import command

from upgrade_service.osc import columns, resources
from upgrade_service.osc.v1 import base

Row = dict[str, Any]

AGENT_FIELDS = ('id', 'host', 'state', 'up', 'version', 'seen_at', 'facts_at', 'created_at')


class ListAgent(base.List):
    """List the engines that are known."""

    fields = ('id', 'host', 'state', 'up', 'version', 'seen_at')
    long_fields = ('facts_at', 'created_at')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add filters."""
        parser = super().get_parser(prog_name)
        parser.add_argument('--host', metavar='<host>', help='Only those of this host')
        parser.add_argument('--state', metavar='<state>', help='Only those in this state')
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the agents."""
        return list(
            self.api.rows(
                resources.Agent,
                host=args.host,
                state=args.state,
                limit=args.limit,
                marker=args.marker,
            )
        )


class ShowAgent(base.Show):
    """Show an engine's identity."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the agent."""
        parser = super().get_parser(prog_name)
        parser.add_argument('agent', metavar='<agent>', help='ID or host of the agent')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it."""
        return columns.card(self.api.row(resources.Agent, parsed_args.agent), AGENT_FIELDS)


class EnrollAgent(base.Show):
    """Make the bundle with which the engine of a host enrols, once.

    Example: openstack upgrade agent enroll cmp1 --bundle-file cmp1.json
    Carry the file to the host as /etc/upgrade-service/enroll.json, readable by root only,
    and start upgrade-service-engine there.
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add host and file."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'host', metavar='<host>', help='Host the engine runs on, as the cloud names it'
        )
        parser.add_argument(
            '--bundle-file',
            metavar='<file>',
            help='Write the bundle into this new file (mode 0600) instead of showing it',
        )
        parser.add_argument(
            '--review',
            action='store_true',
            help='The engine waits for `openstack upgrade agent approve` after it has enrolled',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Ask for a token; write or show the bundle."""
        target = _reserve(parsed_args.bundle_file) if parsed_args.bundle_file else None
        try:
            wanted: dict[str, Any] = {'host': parsed_args.host}
            if parsed_args.review:
                wanted['review'] = True
            made = self.api.ask('/agents', wanted)
        except BaseException:
            if target is not None:
                os.close(target)
                os.unlink(parsed_args.bundle_file)
            raise
        bundle = columns.Document(made.get('bundle') or {})
        if target is None:
            return columns.card({**made, 'bundle': bundle}, ('host', 'expires_at', 'bundle'))
        with os.fdopen(target, 'w', encoding='utf-8') as out:
            out.write(f'{bundle}\n')
        return columns.card(
            {**made, 'bundle_file': parsed_args.bundle_file}, ('host', 'expires_at', 'bundle_file')
        )


def _reserve(path: str) -> int:
    """Create a file that only its owner reads, before a token is spent on it."""
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as e:
        raise exceptions.CommandError(f'--bundle-file {path}: {e.strerror}') from e


class _AgentVerb(ShowAgent):
    verb = ''

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Ask for it, show the agent."""
        self.api.ask(f'/agents/{parsed_args.agent}/{self.verb}')
        return super().take_action(parsed_args)


class ApproveAgent(_AgentVerb):
    """Trust an engine that is pending."""

    verb = 'approve'


class RevokeAgent(_AgentVerb):
    """Trust an engine no more: nothing it says is believed from now on."""

    verb = 'revoke'


class DeleteAgent(base.ApiMixin, command.Command):
    """Forget an engine that was revoked."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the agent."""
        parser = super().get_parser(prog_name)
        parser.add_argument('agent', metavar='<agent>', help='ID or host of the agent')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete it."""
        self.api.remove(f'/agents/{parsed_args.agent}')


class ListStrategy(base.List):
    """List the strategies that engines report, and what keeps some of them from it."""

    fields = ('name', 'ready', 'hosts', 'reasons')
    paged = False

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the strategies."""
        return list(self.api.rows(resources.Strategy))
