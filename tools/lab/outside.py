"""The lab's cloud as an outsider sees it: its APIs over HTTP, its hosts through /proc.

Nothing here uses the upgrade service, and nothing needs a library: what judges an upgrade must not
depend on what was upgraded.
"""

import json
import os
import pathlib
import subprocess
import tempfile
import typing
import urllib.request

LAB_SRC = pathlib.Path(__file__).resolve().parent
LAB_DIR = pathlib.Path(os.environ.get('LAB_DIR') or tempfile.gettempdir() + '/ulab')
LAB_NET = os.environ.get('LAB_NET', '10.77.0')
PORTS = {
    'keystone': 5000,
    'placement': 8778,
    'glance': 9292,
    'nova': 8774,
    'neutron': 9696,
    'cinder': 8776,
}
MICROVERSIONS = {
    'nova': ('OpenStack-API-Version', 'compute 2.80'),
    'placement': ('OpenStack-API-Version', 'placement 1.30'),
}
Json = typing.Any


def hosts(role: str = '') -> list[str]:
    """Names of the lab's hosts, of one role (ctl, cmp, lb) or all."""
    names = (LAB_DIR / 'hosts.list').read_text().split()
    return [name for name in names if name.startswith(role)]


def api_address() -> str:
    """Where users' requests go: the balancer when there is one, or the only controller."""
    return LAB_NET + ('.10' if hosts('lb') else '.11')


def request(
    api: str,
    path: str,
    token: str = '',
    body: Json = None,
    method: str = '',
    timeout: float = 10,
) -> tuple[Json, dict[str, str]]:
    """Send one request on a connection of its own; return the decoded body and the headers.

    Raises OSError (urllib.error.HTTPError for statuses from 400 on, TimeoutError after ``timeout``
    seconds) and http.client.HTTPException for a connection that broke off.
    """
    headers = {'Content-Type': 'application/json', 'Accept': 'application/json'}
    if token:
        headers['X-Auth-Token'] = token
    if api in MICROVERSIONS:
        name, value = MICROVERSIONS[api]
        headers[name] = value
    call = urllib.request.Request(
        f'http://{api_address()}:{PORTS[api]}{path}',
        data=None if body is None else json.dumps(body).encode(),
        headers=headers,
        method=method or None,
    )
    with urllib.request.urlopen(call, timeout=timeout) as answer:
        content = answer.read()
        return (json.loads(content) if content else None), dict(answer.headers)


def issue_token() -> str:
    """A token of the administrator, by password."""
    domain = {'id': 'default'}
    user = {'name': 'admin', 'password': 'lab', 'domain': domain}
    identity = {'methods': ['password'], 'password': {'user': user}}
    scope = {'project': {'name': 'admin', 'domain': domain}}
    body = {'auth': {'identity': identity, 'scope': scope}}
    return request('keystone', '/v3/auth/tokens', body=body)[1]['X-Subject-Token']


def guests(token: str) -> dict[str, str]:
    """Address of each server on the network "lab", by name."""
    servers = request('nova', '/v2.1/servers/detail?all_tenants=1', token)[0]['servers']
    return {
        server['name']: server['addresses']['lab'][0]['addr']
        for server in servers
        if 'lab' in server['addresses']
    }


def leader(host: str) -> int:
    """Process id of a host's systemd; raises LookupError when the host is down."""
    try:
        outer = int((LAB_DIR / 'hosts' / host / 'nspawn.pid').read_text())
        children = pathlib.Path(f'/proc/{outer}/task/{outer}/children').read_text()
        return int(children.split()[0])
    except (OSError, IndexError) as error:
        raise LookupError(f'{host} is not running') from error


def in_host(host: str, *words: str) -> str:
    """Output of a command run inside a host; raises subprocess.CalledProcessError."""
    enter = ['nsenter', '-t', str(leader(host)), '-m', '-p', '-n', '-u', '-i', '--']
    done = subprocess.run([*enter, *words], check=True, stdout=subprocess.PIPE, text=True)
    return done.stdout


#: where the lab's packages have their environments
PACKAGES = '/usr/lib/lab'


def current_versions(host: str) -> dict[str, str]:
    """Where each /opt/stack/SERVICE-current of a host points, by service."""
    stack = pathlib.Path(f'/proc/{leader(host)}/root/opt/stack')
    found = {}
    for link in stack.glob('*-current'):
        service, target = link.name.removesuffix('-current'), os.readlink(link)
        if target.startswith(f'{PACKAGES}/'):  # a package's path does not show the version
            target = packaged(stack.parents[1], service)
        found[service] = target
    return found


def packaged(root: pathlib.Path, service: str) -> str:
    """What the package of a service in a host's tree holds: "nova-34.0.0"."""
    place = root / PACKAGES.lstrip('/') / service
    for path in place.glob(f'lib/python3*/site-packages/*{service}-[0-9]*.dist-info'):
        return f'{service}-{path.name.removesuffix(".dist-info").rpartition("-")[2]}'
    return f'{service}-none'


def unit_processes(host: str) -> dict[str, list[int]]:
    """Process ids (of this machine) of every systemd service of a host, by unit name."""
    space = os.readlink(f'/proc/{leader(host)}/ns/pid')
    found: dict[str, list[int]] = {}
    for process in pathlib.Path('/proc').glob('[0-9]*'):
        try:
            if os.readlink(process / 'ns' / 'pid') != space:
                continue
            group = (process / 'cgroup').read_text()
        except OSError:
            continue  # it has just ended
        for part in group.replace('\n', '/').split('/'):
            if part.endswith('.service'):
                found.setdefault(part.removesuffix('.service'), []).append(int(process.name))
                break
    return found


def environments(pid: int) -> set[str]:
    """Virtual environments whose libraries a process has loaded: {"nova-34.0.0"}.

    The command line does not tell: services rewrite it, and the interpreter is the system's.
    """
    try:
        mapped = pathlib.Path(f'/proc/{pid}/maps').read_text()
    except OSError:
        return set()
    paths = [line.split(maxsplit=5)[-1] for line in mapped.splitlines()]
    code = [path for path in paths if '/site-packages/' in path]
    found = {p.split('/')[3] for p in code if p.startswith(('/opt/stack/', '/opt/pool/'))}
    for path in code:
        if path.startswith(f'{PACKAGES}/'):
            service, gone = path.split('/')[4], path.endswith('(deleted)')
            root = pathlib.Path(f'/proc/{pid}/root')
            found.add(f'{service}-replaced' if gone else packaged(root, service))
    return found
