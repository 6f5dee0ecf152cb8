"""Judge an upgraded cloud from outside: does every service of every host run the release?

    check.py RELEASE [--seed-hosts HOST,...] [--since TIME] [--json FILE]

Prints a line for each check and ends with status 1 when one failed. Seed hosts are those upgraded
while no upgraded host could take their servers, which therefore may have moved twice; the first
host that a server left is taken for one.
"""

import argparse
import collections
import collections.abc
import json
import pathlib
import re
import sys
import time
import urllib.error

import outside

ROLES = {'ctl1': {'one', 'ctl'}, 'ctl': {'ctl'}, 'cmp': {'cmp', 'net'}}
NOVA_BINARIES = ('nova-compute', 'nova-conductor', 'nova-scheduler')
PATIENCE = 120  # s for services to report, and for a server to boot or go
Problems = list[str]


class Cloud:
    """What the checks look at: the release's facts, and the cloud's answers."""

    def __init__(self, release: str, seed_hosts: set[str], since: str) -> None:
        text = (outside.LAB_SRC / 'releases' / release).read_text()
        self.versions = dict(re.findall(r'^([a-z]+)=[^=]+==(\S+)', text, re.MULTILINE))
        self.nova_version = re.findall(r'^# nova service version (\d+)', text, re.MULTILINE)[0]
        self.seed_hosts = seed_hosts
        self.since = since
        self.token = outside.issue_token()

    def get(self, api: str, path: str) -> outside.Json:
        """The answer to GET; raises OSError."""
        return outside.request(api, path, self.token)[0]

    def servers(self) -> list[dict[str, outside.Json]]:
        """Every server of every project."""
        answer = self.get('nova', '/v2.1/servers/detail?all_tenants=1')
        return list(answer['servers'])


def units_of(host: str) -> list[str]:
    """Services that the unit table and the host's own systemd say the host runs."""
    roles = ROLES.get(host) or ROLES.get(host.rstrip('0123456789'), set())
    table = (outside.LAB_SRC / 'files' / 'units' / 'table').read_text()
    rows = [line.split() for line in table.splitlines() if line and not line.startswith('#')]
    wanted = pathlib.Path(f'/proc/{outside.leader(host)}/root/etc/systemd/system')
    enabled = wanted / 'multi-user.target.wants'
    return [
        row[1]
        for row in rows
        if row[0] in roles and (row[0] != 'net' or (enabled / f'{row[1]}.service').is_symlink())
    ]


def running_code(cloud: Cloud) -> Problems:
    """Every process of every service has loaded the release's code and no other."""
    problems = []
    for host in outside.hosts('c'):
        processes = outside.unit_processes(host)
        for unit in units_of(host):
            project = unit.split('-')[0]
            wanted = {f'{project}-{cloud.versions[project]}'}
            loaded = [outside.environments(pid) for pid in processes.get(unit, [])]
            loaded = [environments for environments in loaded if environments]
            if not loaded:
                problems.append(f'{host}: {unit} does not run')
            wrong = {' and '.join(sorted(names)) for names in loaded if names != wanted}
            problems += [f'{host}: {unit} runs {names}' for names in sorted(wrong)]
    return problems


def current_links(cloud: Cloud) -> Problems:
    """Every /opt/stack/SERVICE-current points to the release."""
    problems = []
    for host in outside.hosts('c'):
        for service, target in outside.current_versions(host).items():
            wanted = cloud.versions.get(service)
            if wanted and pathlib.Path(target).name != f'{service}-{wanted}':
                problems.append(f'{host}: {service}-current -> {target}')
    return problems


def nova_service_versions(cloud: Cloud) -> Problems:
    """nova's records, read from its database, carry the release's service version."""
    query = 'select host, `binary`, version from services where deleted = 0'
    rows = outside.in_host('ctl1', 'mariadb', '-N', 'nova', '-e', query).splitlines()
    records = [row.split('\t') for row in rows]
    hosts = {host for host, binary, _version in records if binary == 'nova-compute'}
    missing = set(outside.hosts('cmp')) - hosts
    problems = [f'{host}: no nova-compute record' for host in sorted(missing)]
    for host, binary, version in records:
        if binary in NOVA_BINARIES and version != cloud.nova_version:
            problems.append(f'{host}: {binary} reports {version}, not {cloud.nova_version}')
    return problems


def services_up(cloud: Cloud) -> Problems:
    """Every nova and cinder service is up and enabled, every network agent alive."""
    rows = [('nova', row) for row in cloud.get('nova', '/v2.1/os-services')['services']]
    rows += [('cinder', row) for row in cloud.get('cinder', '/v3/os-services')['services']]
    problems = []
    for project, row in rows:
        name = f'{project}: {row["binary"]} on {row["host"]}'
        if row['state'] != 'up':
            problems.append(f'{name} is {row["state"]}')
        if row['status'] != 'enabled':
            problems.append(f'{name} is {row["status"]}: {row["disabled_reason"]}')
    for agent in cloud.get('neutron', '/v2.0/agents')['agents']:
        name = f'neutron: {agent["binary"]} on {agent["host"]}'
        if not agent['alive']:
            problems.append(f'{name} is not alive')
        if not agent['admin_state_up']:
            problems.append(f'{name} is disabled')
    return problems


def servers_active(cloud: Cloud) -> Problems:
    """Every server is ACTIVE, and placement holds its allocation on its host alone."""
    answer = cloud.get('placement', '/resource_providers')['resource_providers']
    providers = {provider['uuid']: provider['name'] for provider in answer}
    problems = []
    for server in cloud.servers():
        name, host = server['name'], server['OS-EXT-SRV-ATTR:host']
        if server['status'] != 'ACTIVE' or server['OS-EXT-STS:task_state']:
            problems.append(f'{name} is {server["status"]} ({server["OS-EXT-STS:task_state"]})')
        held = cloud.get('placement', f'/allocations/{server["id"]}')['allocations']
        if {providers[uuid] for uuid in held} != {host}:
            problems.append(f'{name} on {host} is allocated at {[providers[u] for u in held]}')
    return problems


def moves(cloud: Cloud) -> Problems:
    """No server moved more often than the order of hosts makes necessary, and none in vain."""
    path = '/v2.1/os-migrations?migration_type=live-migration'
    if cloud.since:
        path += f'&changes-since={cloud.since}'
    rows = sorted(cloud.get('nova', path)['migrations'], key=lambda row: str(row['created_at']))
    names = {server['id']: server['name'] for server in cloud.servers()}
    seeds = cloud.seed_hosts or {row['source_compute'] for row in rows[:1]}
    first: dict[str, str] = {}
    count: collections.Counter[str] = collections.Counter()
    problems = []
    for row in rows:
        server = row['instance_uuid']
        if server not in names:
            continue  # it is gone
        first.setdefault(server, row['source_compute'])
        if row['status'] == 'completed':
            count[server] += 1
        else:
            problems.append(f'{names[server]}: a live migration ended with {row["status"]}')
    for server, times in count.items():
        if times > (2 if first[server] in seeds else 1):
            problems.append(f'{names[server]} of {first[server]} moved {times} times')
    return problems


def boot_and_delete(cloud: Cloud) -> Problems:
    """A new server boots, and can be deleted."""
    flavors = cloud.get('nova', '/v2.1/flavors')['flavors']
    flavor = next(row['id'] for row in flavors if row['name'] == 'm1.lab')
    image = cloud.get('glance', '/v2/images?name=lab')['images'][0]['id']
    network = cloud.get('neutron', '/v2.0/networks?name=lab')['networks'][0]['id']
    server = {'name': 'after', 'flavorRef': flavor, 'imageRef': image}
    body = {'server': {**server, 'networks': [{'uuid': network}]}}
    created = outside.request('nova', '/v2.1/servers', cloud.token, body)[0]
    path = '/v2.1/servers/' + created['server']['id']
    problems = await_server(cloud, path, 'ACTIVE')
    outside.request('nova', path, cloud.token, method='DELETE')
    return problems + await_server(cloud, path, '')


def await_server(cloud: Cloud, path: str, wanted: str) -> Problems:
    """Wait for a server's status; empty: until it is gone."""
    status, end = '', time.monotonic() + PATIENCE
    while time.monotonic() < end:
        try:
            status = cloud.get('nova', path)['server']['status']
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            status = ''
        if status == wanted:
            return []
        if status == 'ERROR':
            break
        time.sleep(1)
    return [f'the server is {status or "gone"}, not {wanted or "gone"}']


CHECKS: list[collections.abc.Callable[[Cloud], Problems]] = [
    current_links,
    running_code,
    nova_service_versions,
    services_up,
    servers_active,
    moves,
    boot_and_delete,
]


def result(check: collections.abc.Callable[[Cloud], Problems], cloud: Cloud) -> Problems:
    """Problems that a check found; an API that fails it is one."""
    try:
        return check(cloud)
    except (OSError, LookupError) as error:
        return [f'{type(error).__name__}: {error}']


def main() -> int:
    """Run every check."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('release')
    parser.add_argument('--seed-hosts', default='', help='comma separated')
    parser.add_argument('--since', default='', help='only count moves after 2026-12-24T18:00:00Z')
    parser.add_argument('--json', default='', help='write the results to this file as well')
    options = parser.parse_args()
    seed_hosts = set(filter(None, options.seed_hosts.split(',')))
    cloud = Cloud(options.release, seed_hosts, options.since)
    results: dict[str, Problems] = {}
    for check in CHECKS:
        name = check.__name__.replace('_', ' ')
        problems = results[name] = result(check, cloud)
        verdict = 'FAILED' if problems else 'ok'
        print(f'{verdict:7}{name}', *problems, sep='\n         ', flush=True)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    failed = sum(map(bool, results.values()))
    print(f'{len(results) - failed} passed, {failed} failed, 0 skipped')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
