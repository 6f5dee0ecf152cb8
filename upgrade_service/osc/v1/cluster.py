"""Commands on clusters and what discovery found in them."""

import argparse
from collections.abc import Sequence
import sys
import time
from typing import Any

from osc_lib import exceptions
from osc_lib.cli import parseractions
from osc_lib.command import command

from upgrade_service.osc import columns, progress, proxy, resources, watch
from upgrade_service.osc.v1 import base

Row = dict[str, Any]

CLUSTER_FIELDS = (
    'id',
    'name',
    'cloud',
    'inventories',
    'properties',
    'discovered_at',
    'discover_error',
    'created_at',
)


def add_cluster(parser: argparse.ArgumentParser) -> None:
    """Add the argument that names a cluster."""
    parser.add_argument('cluster', metavar='<cluster>', help='Name or ID of the cluster')


class CreateCluster(base.Show):
    """Put a cloud under care.

    Example::

      openstack upgrade cluster create prod --cloud prod
      openstack upgrade cluster discover prod --wait
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add name, cloud, inventories, properties."""
        parser = super().get_parser(prog_name)
        parser.add_argument('name', metavar='<name>', help='Name of the new cluster')
        parser.add_argument(
            '--cloud',
            metavar='<entry>',
            help="Entry of the conductor's clouds.yaml (default: the name)",
        )
        parser.add_argument(
            '--inventory',
            metavar='<plugin>',
            action='append',
            help='Where its inventory comes from, may be repeated (default: openstack); see '
            '`upgrade inventory list`',
        )
        parser.add_argument(
            '--property',
            metavar='<key=value>',
            dest='properties',
            action=parseractions.KeyValueAction,
            help='A note of your own, may be repeated',
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Create it."""
        body = {
            'name': parsed_args.name,
            'cloud': parsed_args.cloud or parsed_args.name,
            'inventories': parsed_args.inventory,
            'properties': parsed_args.properties,
        }
        made = self.api.ask('/clusters', {k: v for k, v in body.items() if v is not None})
        return columns.card(made, CLUSTER_FIELDS)


class ListCluster(base.List):
    """List the clouds under care."""

    fields = ('id', 'name', 'cloud', 'discovered_at')
    long_fields = ('inventories', 'properties', 'discover_error', 'created_at')

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the clusters."""
        return list(self.api.rows(resources.Cluster, limit=args.limit, marker=args.marker))


class ShowCluster(base.Show):
    """Show a cloud under care."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the cluster."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it."""
        return columns.card(self.api.row(resources.Cluster, parsed_args.cluster), CLUSTER_FIELDS)


class DeleteCluster(base.ApiMixin, command.Command):
    """Take a cloud out of care; it must have no upgrades left."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the cluster."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> None:
        """Delete it."""
        self.api.remove(f'/clusters/{parsed_args.cluster}')


class DiscoverCluster(base.Show):
    """Look at a cloud anew: hosts, services, versions, problems.

    Example: openstack upgrade cluster discover prod --wait
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add cluster and --wait."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        parser.add_argument(
            '--wait', action='store_true', help='Wait for the end; exit status 1 if it fails'
        )
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Ask for a discovery."""
        ref = parsed_args.cluster
        asked = self.api.ask(f'/clusters/{ref}/discover')
        cluster = self.api.row(resources.Cluster, ref)
        if parsed_args.wait:
            wanted = asked.get('discover_wanted') or cluster.get('discover_wanted') or 0
            cluster = self._wait(ref, cluster, int(wanted))
        return columns.card(cluster, CLUSTER_FIELDS)

    def _wait(self, ref: str, cluster: Row, wanted: int) -> Row:
        watcher = watch.Watcher(self.api, ref, watch.Plain(sys.stderr))
        while (cluster.get('discover_done') or 0) < wanted:
            time.sleep(watch.POLL)
            cluster = watcher.patient(lambda: self.api.row(resources.Cluster, ref))
        if cluster.get('discover_error'):
            self.status = watch.FAILED
            self.say(f'Discovery of {ref} failed: {cluster["discover_error"]}')
        return cluster


class ShowSummary(base.List):
    """Show what runs in a cloud: project by release, up and down, and the problems found.

    Problems are told on stderr; `openstack upgrade problem list` has them as a list.
    """

    fields = ('project', 'release', 'total', 'up', 'down', 'hosts')
    paged = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the cluster."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the counts."""
        self.summary = self.api.document(f'/clusters/{args.cluster}/summary')
        return [{'down': r['total'] - r['up'], **r} for r in self.summary['services']]

    def produce_output(
        self, parsed_args: argparse.Namespace, column_names: Sequence[str], data: Any
    ) -> int:
        """Put the problems under the counts."""
        code: int = super().produce_output(parsed_args, column_names, data)
        problems = proxy.by_severity(self.summary['problems'])
        self.app.stdout.flush()
        self.say(f'{len(problems)} problems' + (':' if problems else ''))
        for line in progress.problem_lines(problems):
            self.say(line)
        return code


class ListHost(base.List):
    """List the hosts of a cloud."""

    fields = (
        'name',
        'roles',
        'az',
        'release',
        'agent_state',
        'services_up',
        'services_total',
        'instances',
    )
    long_fields = ('release_mixed', 'volumes', 'routers')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the cluster."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the hosts."""
        return list(
            self.api.rows(
                resources.Host, cluster_ref=args.cluster, limit=args.limit, marker=args.marker
            )
        )


class ShowHost(base.Show):
    """Show a host of a cloud."""

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add cluster and host."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        parser.add_argument('host', metavar='<host>', help='Name of the host')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Show it."""
        host = self.api.row(resources.Host, parsed_args.host, cluster_ref=parsed_args.cluster)
        return columns.card(host, (*ListHost.fields, *ListHost.long_fields, 'agent', 'facts_at'))


class DeclareHostLost(ShowHost):
    """Give up a host for ever (administrators).

    It must be powered off or fenced: its steps are skipped, and its engine is trusted no more.
    If the host returns, enrol its engine anew.

    Example: openstack upgrade host declare-lost prod cmp7 --fenced --reason "burnt"
    """

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add --fenced and --reason."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            '--fenced',
            action='store_true',
            required=True,
            help='Yes, it is powered off or fenced and cannot come back by itself',
        )
        parser.add_argument('--reason', metavar='<text>', required=True, help='Why; it is audited')
        return parser

    def take_action(self, parsed_args: argparse.Namespace) -> base.Table:
        """Give it up."""
        path = f'/clusters/{parsed_args.cluster}/hosts/{parsed_args.host}/declare-lost'
        self.api.ask(path, {'fenced': True, 'reason': parsed_args.reason})
        return super().take_action(parsed_args)


class ListService(base.List):
    """List the services of a cloud.

    Example: openstack upgrade service list prod --project nova
    """

    fields = ('project', 'binary', 'host', 'az', 'state', 'status', 'version', 'release')
    long_fields = ('forced_down', 'disabled_reason', 'how', 'unit', 'source')

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add cluster and filters."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        for field in ('host', 'project', 'binary'):
            parser.add_argument(
                f'--{field}', metavar=f'<{field}>', help=f'Only those of this {field}'
            )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the services."""
        return list(
            self.api.rows(
                resources.Service,
                cluster_ref=args.cluster,
                host=args.host,
                project=args.project,
                binary=args.binary,
                limit=args.limit,
                marker=args.marker,
            )
        )


class ListPath(base.List):
    """List the releases a cloud can go to from where it is.

    One upgrade makes one hop: to a release several hops away, make an upgrade for each of
    them. From SLURP to SLURP both ways are listed, over the release between and without it.
    A project is rolling (it serves throughout), cold (all of it stops meanwhile), or
    sequential (it skips no release, so a hop from SLURP to SLURP is not for it); the last
    column says whose API is out, for about how long. --long -f json has each hop by itself.

    Example::

      openstack upgrade path list prod
    """

    fields = ('to', 'hops', 'slurp', 'projects', 'down')
    long_fields = ('name', 'stops', 'legs')
    paged = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add the cluster."""
        parser = super().get_parser(prog_name)
        add_cluster(parser)
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the paths."""
        return list(self.api.rows(resources.Path, cluster_ref=args.cluster))


class ListProblem(base.List):
    """List the problems that discovery found, or those of an upgrade's plan.

    Examples::

      openstack upgrade problem list --cluster prod
      openstack upgrade problem list --upgrade first
    """

    fields = ('severity', 'code', 'host', 'service', 'message', 'hint')
    long_fields = ('acceptable',)
    paged = False

    def get_parser(self, prog_name: str) -> argparse.ArgumentParser:
        """Add cluster or upgrade."""
        parser = super().get_parser(prog_name)
        parser.add_argument(
            'cluster', metavar='<cluster>', nargs='?', help='Name or ID of the cluster'
        )
        parser.add_argument(
            '--cluster',
            metavar='<cluster>',
            dest='cluster_option',
            help='The same, as with the other lists',
        )
        parser.add_argument(
            '--upgrade',
            metavar='<upgrade>',
            help="Name or ID of an upgrade, for its plan's problems",
        )
        return parser

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the problems, the blocking ones first."""
        named = [n for n in (args.cluster, args.cluster_option, args.upgrade) if n]
        if len(named) != 1:
            raise exceptions.CommandError('name either a cluster or, with --upgrade, an upgrade')
        cluster = args.cluster or args.cluster_option
        return self.api.problems(cluster=cluster, upgrade=args.upgrade)


class ListInventory(base.List):
    """List the plugins that say what a cluster is made of.

    openstack: the cloud's own APIs. ansible: an Ansible inventory that the conductor's
    [ansible_inventory] names. puppet: a PuppetDB that its [puppetdb] names. Give several to
    `upgrade cluster create --inventory`; where they disagree, `upgrade problem list` shows it.
    """

    fields = ('name', 'package', 'version')
    paged = False

    def found(self, args: argparse.Namespace) -> Sequence[Row]:
        """Return the plugins."""
        return list(self.api.rows(resources.Inventory))
