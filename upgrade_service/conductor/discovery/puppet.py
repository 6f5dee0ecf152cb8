"""Inventory plugin `puppet`: what PuppetDB says of hosts, packages and classes.

Three queries whatever the number of hosts, in pages: facts of a few names, the classes that
are known (`known.yaml`) and the packages of OpenStack. PuppetDB is asked with the
conductor's own certificate; its answers are bounded, and names in them are checked.
"""

from collections.abc import Iterator, Mapping
import json
import re
from typing import Any

from oslo_config import cfg
import requests

from upgrade_service import exception, model
from upgrade_service.conductor.discovery import base

Rows = list[dict[str, Any]]
PAGE = 5000
#: rows and bytes of one answer; 20,000 hosts with 25 classes each are fewer
MOST_ROWS, MOST_BYTES = 1_000_000, 64 * 2**20
FACTS = ('networking', 'os', 'puppetversion')
#: distribution of a project: packages that carry its version, as Debian, Ubuntu and RDO name them
PACKAGES = {
    'keystone': ('python3-keystone', 'keystone', 'openstack-keystone'),
    'placement': ('python3-placement', 'placement-api', 'openstack-placement-common'),
    'glance': ('python3-glance', 'glance-api', 'openstack-glance'),
    'nova': ('python3-nova', 'nova-common', 'openstack-nova-common'),
    'neutron': ('python3-neutron', 'neutron-common', 'openstack-neutron-common'),
    'cinder': ('python3-cinder', 'cinder-common', 'openstack-cinder'),
}
_RELEASED = re.compile(r'^(?:\d+:)?(\d+(?:\.\d+)*)')


class PuppetInventory(base.InventoryManager):
    """The cluster, as PuppetDB knows it."""

    name = 'puppet'
    summary = "PuppetDB: each host's facts, classes and packages"

    def collect(self, conf: cfg.ConfigOpts, cluster: Mapping[str, Any]) -> base.Found:
        """Ask PuppetDB."""
        url = base.chosen(conf.puppetdb.sources, cluster, 'puppetdb')
        try:
            with requests.Session() as session:
                ask = _Asker(session, url, conf.puppetdb)
                return compose(
                    ask.rows('facts', _any('name', FACTS)),
                    ask.rows('resources', _classes()),
                    ask.rows('package-inventory', _any('package_name', _packages())),
                )
        except (requests.RequestException, ValueError, OSError) as e:
            raise exception.CloudUnavailable(
                service=f'PuppetDB at {url}', cluster=cluster['name'], reason=_reason(e)
            ) from e


def _reason(error: Exception) -> str:
    """Say in one line why it did not answer."""
    inner: BaseException = error
    while (inner.__cause__ or inner.__context__) is not None:
        inner = inner.__cause__ or inner.__context__ or inner
    return f'{inner}'.partition('\n')[0][:300] or type(error).__name__


def _any(field: str, values: Any) -> list[Any]:
    return ['in', field, ['array', list(values)]]


def _classes() -> list[Any]:
    return ['and', ['=', 'type', 'Class'], _any('title', base.known('puppet'))]


def _packages() -> list[str]:
    return [name for names in PACKAGES.values() for name in names]


class _Asker:
    """Asks one PuppetDB, page by page."""

    def __init__(self, session: requests.Session, url: str, options: Any) -> None:
        self._session, self._url, self._timeout = session, url.rstrip('/'), options.timeout
        if options.cafile:
            session.verify = options.cafile
        if options.certfile:
            session.cert = (options.certfile, options.keyfile or options.certfile)
        session.trust_env = False  # no proxy, no .netrc of whoever runs the conductor

    def rows(self, what: str, query: list[Any]) -> Rows:
        """Return every row of a query."""
        found: Rows = []
        while True:
            page = self._page(what, query, len(found))
            found += page
            if len(page) < PAGE:
                return found
            if len(found) > MOST_ROWS:
                raise ValueError(f'{what}: more than {MOST_ROWS} rows')

    def _page(self, what: str, query: list[Any], offset: int) -> Rows:
        with self._session.post(
            f'{self._url}/pdb/query/v4/{what}',
            json={
                'query': query,
                'limit': PAGE,
                'offset': offset,
                'order_by': [{'field': 'certname'}, {'field': _ORDER[what]}],
            },
            timeout=self._timeout,
            allow_redirects=False,
            stream=True,
        ) as answer:
            body = bytearray()
            for part in answer.iter_content(2**16):
                body += part
                if len(body) > MOST_BYTES:
                    raise ValueError(f'{what}: an answer larger than {MOST_BYTES >> 20} MiB')
        if answer.status_code != 200:
            said = body[:200].decode(errors='replace')
            raise ValueError(f'{what}: status {answer.status_code} {said}')
        rows = json.loads(body)
        if not isinstance(rows, list) or not all(isinstance(r, dict) for r in rows):
            raise ValueError(f'{what}: not a list of rows')
        return rows


#: what makes the order of rows the same for each page
_ORDER = {'facts': 'name', 'resources': 'title', 'package-inventory': 'package_name'}


# -- from the rows to the nouns; pure ------------------------------------------------------------


def compose(facts: Rows, classes: Rows, packages: Rows) -> base.Found:
    """Turn the rows into hosts and services."""
    hosts, wrong = _hosts(facts)
    versions = dict(_versions(packages))
    found: dict[tuple[str, str], model.Service] = {}
    known = base.known('puppet')
    for row in classes:
        cert, binary = str(row.get('certname')), known.get(str(row.get('title')))
        if binary is None or cert not in hosts:
            continue
        project = binary.partition('-')[0]
        version = versions.get((cert, project))
        found[hosts[cert], binary] = model.Service(
            project=project,
            binary=binary,
            host=hosts[cert],
            version=version,
            how='package' if version else None,
            source='puppet',
        )
    return base.Found(
        source='puppet',
        hosts={host: model.Host(name=host) for host, _ in found},
        services=[found[key] for key in sorted(found)],
        names=frozenset(hosts.values()),
        lists=frozenset(binary for _, binary in found),
        problems=wrong,
    )


def _hosts(facts: Rows) -> tuple[dict[str, str], list[model.Problem]]:
    """Return certname -> host (its FQDN by its own facts), and problems."""
    found: dict[str, str] = {}
    wrong = []
    for row in facts:
        cert, value = str(row.get('certname')), row.get('value')
        said = cert
        if row.get('name') == 'networking' and isinstance(value, dict):
            said = value.get('fqdn') or value.get('hostname') or cert
        elif cert in found:
            continue
        host = base.host_name(said)
        if host is not None:
            found[cert] = host
        else:
            wrong.append(
                model.Problem(
                    code='bad_host_name',
                    severity='warning',
                    acceptable=True,
                    message=f'PuppetDB has a node that can be no host: {str(said)[:64]!a}.',
                    hint='it is left out; deactivate it with `puppet node deactivate`',
                )
            )
    return found, wrong[:100]


def _versions(packages: Rows) -> Iterator[tuple[tuple[str, str], str]]:
    """Yield ((certname, project), version as upstream numbers it)."""
    project_of = {name: p for p, names in PACKAGES.items() for name in reversed(names)}
    rank = {name: i for names in PACKAGES.values() for i, name in enumerate(names)}
    for row in sorted(packages, key=lambda r: -rank.get(str(r.get('package_name')), 0)):
        project = project_of.get(str(row.get('package_name')))
        said = str(row.get('version') or '')
        number = _RELEASED.match(said) if base.VERSION.match(said) else None
        if project and number:
            yield (str(row.get('certname')), project), number[1]
