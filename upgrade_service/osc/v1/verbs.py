"""The verbs: what an operator may ask of an upgrade that exists."""

import argparse
from typing import Any

from upgrade_service.osc import progress, proxy
from upgrade_service.osc.v1 import base
from upgrade_service.osc.v1 import upgrade as upgrades

Row = dict[str, Any]


class _Verb(base.Act):
    """A verb on an upgrade: POST /v1/upgrades/{id}/{verb}."""

    verb = ''

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the upgrade."""
        parser = super().get_parser(prog_name)
        upgrades.add_upgrade(parser)
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Return the verb's options."""
        return {}

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Ask for it."""
        ref = self.api.upgrade(parsed_args.upgrade)['id']
        body = {k: v for k, v in self.body(parsed_args).items() if v}
        upgrade = self.acted(
            ref, lambda: self.api.ask(f'/upgrades/{ref}/{self.verb}', body), parsed_args.wait
        )
        return self.shown(upgrade)


class StartUpgrade(_Verb):
    """Start an upgrade that is a draft.

    Example: openstack upgrade start first --wait
    """

    verb = 'start'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --accept."""
        parser = super().get_parser(prog_name)
        upgrades.add_accept(parser)
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name the accepted problems."""
        return {'accept': args.accept}

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Start it; when that is refused, tell the problems in full."""
        try:
            return super().take_action(parsed_args)
        except proxy.Refused as e:
            if e.code == 'upgrade.not_startable':
                found = self.api.problems(upgrade=parsed_args.upgrade)
                blocking = [p for p in found if p.get('severity') == 'blocking']
                for line in progress.problem_lines(blocking):
                    self.say(line)
            raise


class PauseUpgrade(_Verb):
    """Begin nothing new; what runs now ends first (see it through with --wait).

    With `--at host` the hosts that are out of service are brought to their end and enabled
    first, so that the pause leaves none of them aside.

    Example: openstack upgrade pause first --at host --wait
    """

    verb = 'pause'
    goal = 'pause'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --at."""
        parser = super().get_parser(prog_name)
        parser.add_argument('--at', choices=['host'], help='End the hosts in progress first')
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name where."""
        return {'at': args.at}


class ResumeUpgrade(_Verb):
    """Go on with a paused upgrade, or with a blocked one whose reason you have dealt with.

    Example: openstack upgrade resume first --acknowledge drift
    """

    verb = 'resume'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --acknowledge."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--acknowledge', metavar='<reason>', help='The `blocked_reason` you have dealt with'
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name the reason."""
        return {'acknowledge': args.acknowledge}


class CancelUpgrade(_Verb):
    """Stop an upgrade and put hosts that are healthy back into service.

    What was upgraded stays upgraded; `upgrade rollback` is the verb that undoes it.
    """

    verb = 'cancel'
    goal = 'cancel'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --now."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--now',
            action='store_true',
            help='Interrupt what may be interrupted, instead of waiting for its end; never a '
            'package transaction or a database migration',
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name the hurry."""
        return {'now': args.now}


class AbortUpgrade(_Verb):
    """Cancel an upgrade at once: the same as `upgrade cancel --now`."""

    verb = 'cancel'
    goal = 'cancel'

    def body(self, args: argparse.Namespace) -> Row:
        """Name the hurry."""
        return {'now': True}


class RollbackUpgrade(_Verb):
    """Undo what an upgrade did, last in first out (administrators).

    Hosts and services go back to the release they came from; a host that was upgraded by half
    is brought back whole. Databases stay extended, for the old code works with them. Behind a
    point of no return there is no way back: `upgrade show` names the `rollback_floor`, and
    `upgrade plan show --undo` what would be done.

    Examples::

      openstack upgrade rollback first --wait
      openstack upgrade rollback first --to 57
    """

    verb = 'rollback'
    goal = 'rollback'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --to."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--to',
            metavar='<step>',
            default='start',
            help='Keep this step and all before it, by their number (default: start, keep none)',
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name how far."""
        return {'to': args.to}


class ReplanUpgrade(_Verb):
    """Plan what is left of an upgrade anew, from the cloud as it is now.

    The upgrade must be at rest, with no host in progress (`upgrade pause --at host`). If the
    new plan touches more hosts or has more points of no return, it waits at gate `replan`.

    Example: openstack upgrade replan first --wait
    """

    verb = 'replan'
    goal = 'replan'


class ApproveUpgrade(_Verb):
    """Let an upgrade pass the gate at which it waits.

    Example: openstack upgrade approve first --gate finish --wait
    """

    verb = 'approve'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --gate."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--gate', metavar='<gate>', help='The gate you mean (default: the one it waits at)'
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name the gate."""
        return {'gate': args.gate or self.api.upgrade(args.upgrade).get('gate')}
