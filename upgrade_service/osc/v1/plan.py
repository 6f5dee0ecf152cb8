"""Commands on plans and their steps."""

import argparse
from collections.abc import Sequence
import json
from typing import Any, TextIO

from cliff.formatters import base as formatters
from osc_lib import exceptions
from osc_lib.command import command

from upgrade_service.osc import columns, graph, render, resources
from upgrade_service.osc.v1 import base
from upgrade_service.osc.v1 import upgrade as upgrades

Row = dict[str, Any]

STEP_FIELDS = (
    'ord',
    'id',
    'stage',
    'kind',
    'title',
    'host',
    'project',
    'service',
    'strategy',
    'params',
    'state',
    'attempt',
    'parents',
    'reversible',
    'idempotent',
    'ponr',
    'estimate',
    'started_at',
    'finished_at',
    'seconds',
    'progress',
    'error',
)


class Tree(formatters.ListFormatter):
    """The names `tree` and `dot` among the formats of `plan show`; :class:`ShowPlan` draws."""

    def add_argument_group(self, parser: argparse.ArgumentParser) -> None:
        """Have no options."""

    def emit_list(
        self,
        column_names: Sequence[str],
        data: Any,
        stdout: TextIO,
        parsed_args: argparse.Namespace,
    ) -> None:
        """Refuse: they are drawn from the plan, not from a table."""
        raise NotImplementedError


class ShowPlan(base.List):
    """Show the plan of an upgrade.

    Example: openstack upgrade plan show first
    The default format is a tree: stages, hosts (those that are alike once), steps, with marks
    for what runs beside other steps, what can be undone and each point of no return.
    `--undo` draws what a rollback would do instead.
    `-f json` gives the whole plan, with moves, digest and estimate; `-f dot` a graph for
    Graphviz (`… -f dot | dot -Tsvg`); `-f table`, csv, yaml and value list its steps.
    """

    fields = (
        'ord',
        'stage',
        'kind',
        'host',
        'project',
        'service',
        'state',
        'reversible',
        'ponr',
        'estimate',
        'parents',
    )
    paged = False

    @property
    def formatter_namespace(self) -> str:
        """The formats of this command: those of lists, `tree` and `dot`."""
        return 'upgrade_service.osc.plan_formatters'

    @property
    def formatter_default(self) -> str:
        """Draw a tree unless told otherwise."""
        return 'tree'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the upgrade."""
        parser = super().get_parser(prog_name)
        upgrades.add_upgrade(parser)
        parser.add_argument(
            '--undo', action='store_true', help='Draw the way back: what `rollback` would do'
        )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the steps."""
        self.plan = self.api.document(f'/upgrades/{args.upgrade}/plan')
        if args.undo:
            self.plan = render.way_back(self.plan)
        return [
            {'stage': stage['name'], **step}
            for stage in self.plan.get('stages') or ()
            for step in stage['steps']
        ]

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Any
    ) -> int:
        """Draw the tree or give the whole document; leave other formats to cliff."""
        out = self.app.stdout
        if parsed_args.formatter == 'tree':
            marks = render.marks_for(getattr(out, 'encoding', None) or 'utf-8')
            out.write(render.tree(self.plan, marks) + '\n')
        elif parsed_args.formatter == 'dot':
            out.write(graph.dot(self.plan))
        elif parsed_args.formatter == 'json' and not parsed_args.columns:
            out.write(json.dumps(self.plan, indent=None if parsed_args.noindent else 2) + '\n')
        else:
            code: int = super().produce_output(parsed_args, column_names, data)
            return code
        return 0


class ListStep(base.List):
    """List the steps of an upgrade.

    Example: openstack upgrade step list first --state failed --long
    """

    fields = ('ord', 'stage', 'kind', 'host', 'project', 'service', 'state', 'attempt', 'seconds')
    long_fields = (
        'id',
        'strategy',
        'parents',
        'ponr',
        'started_at',
        'finished_at',
        'progress',
        'error',
    )

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add upgrade and filters."""
        parser = super().get_parser(prog_name)
        upgrades.add_upgrade(parser)
        for field in ('state', 'host', 'stage', 'kind', 'project'):
            parser.add_argument(
                f'--{field}', metavar=f'<{field}>', help=f'Only those of this {field}'
            )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the steps."""
        return list(
            self.api.steps(
                args.upgrade,
                state=args.state,
                host=args.host,
                stage=args.stage,
                kind=args.kind,
                project=args.project,
                limit=args.limit,
                marker=args.marker,
            )
        )


def add_step(parser: argparse.ArgumentParser) -> None:
    """Add the arguments that name a step."""
    upgrades.add_upgrade(parser)
    parser.add_argument('step', metavar='<step>', help='Number or ID of the step')


class ShowStep(base.Show):
    """Show a step."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add upgrade and step."""
        parser = super().get_parser(prog_name)
        add_step(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it."""
        step = self.api.row(resources.Step, parsed_args.step, upgrade_ref=parsed_args.upgrade)
        return columns.card(step, STEP_FIELDS)


class ShowStepLog(base.ApiMixin, command.Command):
    """Print what a step printed, in its last attempt that printed something."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add upgrade, step, attempt."""
        parser = super().get_parser(prog_name)
        add_step(parser)
        parser.add_argument('--attempt', metavar='<n>', type=int, help='Of this attempt')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Print it."""
        path = f'/upgrades/{parsed_args.upgrade}/steps/{parsed_args.step}/log'
        query = f'?attempt={parsed_args.attempt}' if parsed_args.attempt else ''
        text = str(self.api.document(path + query).get('text') or '')
        self.app.stdout.write(text if text.endswith('\n') or not text else text + '\n')


class _StepVerb(base.Act):
    """A verb on a step; --wait follows the upgrade from there."""

    verb = ''

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add upgrade and step."""
        parser = super().get_parser(prog_name)
        add_step(parser)
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Return the verb's options."""
        return {}

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Ask for it; show the step, or after --wait the upgrade."""
        ref = self.api.upgrade(parsed_args.upgrade)['id']
        path = f'/upgrades/{ref}/steps/{parsed_args.step}/{self.verb}'
        body = {k: v for k, v in self.body(parsed_args).items() if v}
        upgrade = self.acted(
            ref,
            lambda: self.api.ask(path, body),
            parsed_args.wait,
            **({'unblocking': True} if parsed_args.wait else {}),
        )
        if parsed_args.wait:
            return self.shown(upgrade)
        step = self.api.row(resources.Step, parsed_args.step, upgrade_ref=ref)
        return columns.card(step, STEP_FIELDS)


class RetryStep(_StepVerb):
    """Try a failed or unknown step again.

    Example: openstack upgrade step retry first 57 --wait
    """

    verb = 'retry'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --acknowledge-risk."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--acknowledge-risk',
            action='store_true',
            help='It may have been done already, you looked, and want it done again',
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name the risk."""
        return {'acknowledge_risk': args.acknowledge_risk}


class SkipStep(_StepVerb):
    """Go on without a failed or unknown step.

    Example: openstack upgrade step skip first 57 --force --reason "done by hand"
    """

    verb = 'skip'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --force and --reason."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--force',
            action='store_true',
            help='Also a step that later ones rely on, because you made it good by hand',
        )
        parser.add_argument('--reason', metavar='<text>', help='Why, for the audit trail')
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name force and reason."""
        if args.force and not args.reason:
            raise exceptions.CommandError('--force needs --reason')
        return {'force': args.force, 'reason': args.reason}


class ResolveStep(_StepVerb):
    """Say how a failed or unknown step really ended; you looked.

    Example: openstack upgrade step resolve first 57 --outcome succeeded --evidence "saw it run"
    """

    verb = 'resolve'

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --outcome and --evidence."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--outcome', choices=['succeeded', 'failed'], required=True, help='How it ended'
        )
        parser.add_argument(
            '--evidence', metavar='<text>', required=True, help='How you know; it is audited'
        )
        return parser

    def body(self, args: argparse.Namespace) -> Row:
        """Name outcome and evidence."""
        return {'outcome': args.outcome, 'evidence': args.evidence}
