"""What the commands share: reading, listing, and waiting with an exit status."""

import argparse
from collections.abc import Callable, Sequence
import sys
from typing import Any, ClassVar

from osc_lib.command import command

from upgrade_service.osc import columns, progress, proxy, watch

Row = dict[str, Any]
Table = tuple[tuple[str, ...], Any]

#: fields of one upgrade, in the order they are shown; a table shows those that say something
UPGRADE_FIELDS = (
    'id',
    'name',
    'cluster',
    'from_release',
    'to_release',
    'strategy',
    'type',
    'state',
    'next',
    'direction',
    'gate',
    'blocked_reason',
    'message',
    'progress',
    'hosts',
    'eta_seconds',
    'selection',
    'points_of_no_return',
    'rollback_floor',
    'created_at',
    'started_at',
    'finished_at',
    'version',
)
#: fields that a table shows with --long; programs always get them
UPGRADE_LONG_FIELDS = (
    'cluster_id',
    'policy',
    'approvals',
    'accepted',
    'revision',
    'user_id',
    'project_id',
)


def words(text: str) -> list[str]:
    """Parse `a,b,c`.

    :raises ArgumentTypeError: an item is empty.
    """
    found = [w.strip() for w in text.split(',')]
    if not all(found):
        raise argparse.ArgumentTypeError('expected names separated by commas, none of them empty')
    return found


class ApiMixin:
    """The proxy of the service, and the stream for people."""

    app: Any

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Let `--help` teach with examples."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)  # type: ignore[misc]
        parser.formatter_class = argparse.RawDescriptionHelpFormatter
        return parser

    @property
    def api(self) -> proxy.Proxy:
        """The SDK proxy."""
        found: proxy.Proxy = self.app.client_manager.upgrade
        return found

    def say(self, line: str) -> None:
        """Tell people something; stdout stays clean."""
        sys.stderr.write(f'{line}\n')


class List(ApiMixin, command.Lister):
    """A collection: `fields`, more of them with `--long`, in pages by --limit and --marker."""

    fields: ClassVar[Sequence[str]] = ()
    long_fields: ClassVar[Sequence[str]] = ()
    paged: ClassVar[bool] = True

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add what lists have in common."""
        parser: argparse.ArgumentParser = super().get_parser(prog_name)
        if self.long_fields:
            parser.add_argument('--long', action='store_true', help='Show more fields')
        if self.paged:
            parser.add_argument(
                '--limit', type=int, metavar='<n>', help='Show so many at most (default: all)'
            )
            parser.add_argument(
                '--marker',
                metavar='<id>',
                help='Begin after this one, the last of the page before',
            )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the rows to list."""
        raise NotImplementedError

    def take_action(self, parsed_args: argparse.Namespace) -> Table:
        """List them."""
        fields = [*self.fields]
        if getattr(parsed_args, 'long', False):
            fields += self.long_fields
        return columns.table(self.found(parsed_args), fields)


class Show(ApiMixin, command.ShowOne):
    """One resource; a subclass may set `status`, the exit status."""

    status = watch.OK

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Show it and return the exit status."""
        code: int = super().run(parsed_args)
        return code or self.status


class Follow(Show):
    """An upgrade, which may be followed to its end."""

    _brief = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --long."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--long',
            action='store_true',
            help='Show every field in a table, also the policy and what says nothing',
        )
        return parser

    def run(self, parsed_args: argparse.Namespace) -> int:
        """Be brief to people only: not in other formats, nor where columns are asked for."""
        self._brief = parsed_args.formatter == 'table' and not (
            parsed_args.long or parsed_args.columns
        )
        return super().run(parsed_args)

    def watcher(self, ref: str) -> watch.Watcher:
        """Return what follows an upgrade and tells of it on stderr."""
        return watch.Watcher(self.api, ref, watch.view_for(sys.stderr))

    def follow(self, watcher: watch.Watcher, goal: str, **kw: bool) -> Row:
        """Wait, tell how it ended, set the exit status, return the upgrade."""
        if goal == 'end' and watcher.upgrade.get('direction') == 'back':
            goal = 'rollback'  # where an upgrade that goes back is to end
        try:
            self.status = watcher.follow(goal, **kw)
            tell_end(watcher, goal, self.status)
        except KeyboardInterrupt:
            self.status = watch.INTERRUPTED
            self.say(left_alone(watcher))
        return watcher.upgrade

    def shown(self, upgrade: Row) -> Table:
        """Return an upgrade's card."""
        if self._brief:
            return columns.card(upgrade, UPGRADE_FIELDS, spare=True)
        return columns.card(upgrade, UPGRADE_FIELDS + UPGRADE_LONG_FIELDS)


class Act(Follow):
    """Something is asked of an upgrade and, with --wait, followed to its end."""

    goal: ClassVar[str] = 'end'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --wait."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--wait',
            action='store_true',
            help='Follow it; exit status 0: done, 1: failed, blocked or cancelled, 3: it waits '
            'for a person, for example at a gate',
        )
        return parser

    def acted(self, ref: str, post: Callable[[], object], wait: bool, **kw: bool) -> Row:
        """Ask, wait if wanted, and return the upgrade as it is then."""
        watcher = self.watcher(ref)
        if wait:
            watcher.skip_history()
        post()
        watcher.refresh()
        return self.follow(watcher, self.goal, **kw) if wait else watcher.upgrade


def name_of(upgrade: Row) -> str:
    """Return what people call an upgrade."""
    return str(upgrade.get('name') or upgrade.get('id'))


def tell_end(watcher: watch.Watcher, goal: str, status: int) -> None:
    """Say on stderr how it ended and what may be done."""
    upgrade, say = watcher.upgrade, watcher.view.say
    ref, state = name_of(upgrade), upgrade['state']
    message = ' '.join(str(upgrade.get('message') or '').split())
    if goal == 'plan' and state == 'draft':
        return
    say(f'Upgrade {ref} is {progress.summary(upgrade)}' + (f': {message}' if message else ''))
    if state == 'blocked':
        for line in progress.stuck_lines(ref, watcher.stuck()):
            say(line)
    elif status == watch.HELD:
        say(
            HELD_LINES['gate' if upgrade.get('gate') else state].format(
                ref=ref, **{'gate': upgrade.get('gate')}
            )
        )


#: what a person may do where an upgrade waits for one
HELD_LINES = {
    'gate': 'It waits at gate {gate}. To go on: openstack upgrade approve {ref} --gate {gate}',
    'paused': 'To go on: openstack upgrade resume {ref}',
    'draft': 'Nothing was touched yet. To begin: openstack upgrade start {ref}',
}


def left_alone(watcher: watch.Watcher) -> str:
    """Say what goes on after Ctrl-C."""
    ref = name_of(watcher.upgrade or {'id': watcher.ref})
    if watcher.upgrade.get('state') in ('planning', 'draft'):
        return (
            f'\nThe upgrade was not started. See it: openstack upgrade plan show {ref}; '
            f'start it: openstack upgrade start {ref}'
        )
    return (
        f'\nThe upgrade goes on without this command. Watch it: openstack upgrade watch '
        f'{ref}; hold it: openstack upgrade pause {ref}'
    )
