"""Ask every API and every guest twice a second until told to stop; say how long each was out.

    probe.py [--json FILE]      SIGTERM or SIGINT ends it and prints the report

A request has failed when it was refused or reset, answered 5xx, or not answered in 10 s. An
outage runs from the start of the first failed request to the start of the next good one. Guests
are pinged from a port on the tenants' VLAN that belongs to none of them, so it stays when they
move.
"""

import argparse
import collections.abc
import http.client
import itertools
import json
import signal
import subprocess
import sys
import threading
import time
import types
import urllib.error

import outside

INTERVAL = 0.5  # s between two requests to one endpoint
SWITCH, PORT = 'br-probe', 'probe0'
ADDRESS = '10.99.0.250/24'  # outside the subnet's allocation pool
# one cheap authenticated request for each API
USES = {
    'keystone': '/v3/auth/projects',
    'placement': '/resource_providers',
    'glance': '/v2/images?limit=1',
    'nova': '/v2.1/servers?limit=1',
    'neutron': '/v2.0/networks?fields=id',
    'cinder': '/v3/volumes?limit=1',
}

stopping = threading.Event()


class Series:
    """Good and failed observations of one endpoint, in order."""

    def __init__(self) -> None:
        self.count = self.failed = 0
        self.slowest = 0.0
        self.outages: list[dict[str, str | float]] = []
        self._since: float | None = None
        self._error = ''

    def good(self, when: float, took: float = 0.0) -> None:
        """The request sent at ``when`` (s since the epoch) was answered after ``took`` s."""
        self.count += 1
        self.slowest = max(self.slowest, took)
        self.close(when)

    def bad(self, when: float, error: str) -> None:
        """The request sent at ``when`` failed."""
        self.count += 1
        self.failed += 1
        if self._since is None:
            self._since, self._error = when, error

    def close(self, when: float) -> None:
        """End the outage that goes on, if one does."""
        if self._since is None:
            return
        began = time.strftime('%H:%M:%S', time.localtime(self._since))
        seconds = round(when - self._since, 1)
        self.outages.append({'began': began, 'seconds': seconds, 'error': self._error})
        self._since = None

    def report(self) -> dict[str, object]:
        """Counts, and seconds of outage: the longest and all together."""
        lengths = [float(outage['seconds']) for outage in self.outages]
        return {
            'requests': self.count,
            'failed': self.failed,
            'longest_gap_s': max(lengths, default=0.0),
            'failed_s': round(sum(lengths), 1),
            'slowest_answer_s': round(self.slowest, 2),
            'outages': self.outages,
        }


class Token:
    """The token that the others use: the last that was issued."""

    value = ''


def failure(error: Exception) -> str:
    """Why a request counts as failed; empty when the API did answer (300, 401 and their like)."""
    if isinstance(error, urllib.error.HTTPError):
        return f'{error.code}' if error.code >= 500 else ''
    reason = getattr(error, 'reason', error)
    return f'{type(reason).__name__}: {reason}'


def watch(series: Series, call: collections.abc.Callable[[], object]) -> None:
    """Call twice a second until the end."""
    while not stopping.is_set():
        began = time.time()
        why = ''
        try:
            call()
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = failure(error)
        if why:
            series.bad(began, why)
        else:
            series.good(began, time.time() - began)
        stopping.wait(max(0.0, began + INTERVAL - time.time()))


def api_calls() -> dict[str, collections.abc.Callable[[], object]]:
    """What is asked: each API's front page, a token, and that token at each API in turn."""
    calls: dict[str, collections.abc.Callable[[], object]] = {
        api: lambda api=api: outside.request(api, '/')  # type: ignore[misc]
        for api in outside.PORTS
    }
    turns = itertools.cycle(USES.items())

    def issue() -> None:
        Token.value = outside.issue_token()

    def use() -> None:
        api, path = next(turns)
        try:
            outside.request(api, path, Token.value)
        except urllib.error.HTTPError as error:
            raise ValueError(f'{api}: {error.code}') from error
        except OSError as error:
            raise ValueError(f'{api}: {failure(error)}') from error

    return {**calls, 'token-issue': issue, 'token-use': use}


def enter_network(token: str) -> None:
    """Give the controller a port on the VLAN of the network "lab", on a switch of its own."""
    network = outside.request('neutron', '/v2.0/networks?name=lab', token)[0]['networks'][0]
    vlan = network['provider:segmentation_id']
    outside.in_host('ctl1', 'systemctl', 'start', 'openvswitch-switch')
    leave_network()
    for line in (
        f'ovs-vsctl add-br {SWITCH} -- set bridge {SWITCH} datapath_type=netdev',
        f'ovs-vsctl add-port {SWITCH} data0',
        f'ovs-vsctl add-port {SWITCH} {PORT} tag={vlan} -- set interface {PORT} type=internal',
        'ip link set data0 up',
        f'ip addr add {ADDRESS} dev {PORT}',
        f'ip link set {PORT} up',
    ):
        outside.in_host('ctl1', *line.split())


def leave_network() -> None:
    """Remove what enter_network made, if it is there."""
    outside.in_host('ctl1', 'ovs-vsctl', '--if-exists', 'del-br', SWITCH)


def listen(series: Series, ping: 'subprocess.Popen[str]') -> None:
    """Read a ping's lines: an answer, or that none has come for the last one sent."""
    for line in ping.stdout or ():
        if 'bytes from' in line:
            series.good(time.time(), float(line.split('time=')[1].split()[0]) / 1000)
        elif 'no answer yet' in line or 'nreachable' in line:
            series.bad(time.time() - INTERVAL, 'no answer')


def start_pings(
    addresses: dict[str, str], seen: dict[str, Series]
) -> list['subprocess.Popen[str]']:
    """One ping for each guest, read by a thread of its own."""
    pings = []
    enter = ['nsenter', '-t', str(outside.leader('ctl1')), '-m', '-n', '--']
    for name, address in addresses.items():
        words = ['stdbuf', '-oL', 'ping', '-n', '-O', '-i', str(INTERVAL), address]
        ping = subprocess.Popen(
            [*enter, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        threading.Thread(target=listen, args=(seen[name], ping), daemon=True).start()
        pings.append(ping)
    return pings


def show(report: dict[str, dict[str, dict[str, object]]]) -> None:
    """Print a line for each endpoint and guest."""
    print(f'{"":14}{"requests":>9}{"failed":>8}{"longest":>10}{"in all":>9}{"slowest":>10}')
    for kind in 'apis', 'guests':
        for name, row in report[kind].items():
            print(
                f'{name:14}{row["requests"]:>9}{row["failed"]:>8}{row["longest_gap_s"]:>8} s'
                f'{row["failed_s"]:>7} s{row["slowest_answer_s"]:>8} s'
            )
            for outage in row['outages']:  # type: ignore[attr-defined]
                print(f'    {outage["began"]} {outage["seconds"]} s: {outage["error"]}')


def probe(path: str) -> None:
    """Watch until SIGTERM or SIGINT, then print the report and write it to ``path``."""
    began = time.time()
    Token.value = outside.issue_token()
    addresses = outside.guests(Token.value)
    enter_network(Token.value)
    calls = api_calls()
    apis = {name: Series() for name in calls}
    guests = {name: Series() for name in sorted(addresses)}
    pings = start_pings(addresses, guests)
    watchers = [threading.Thread(target=watch, args=(apis[n], calls[n])) for n in calls]
    for watcher in watchers:
        watcher.start()
    print(f'probing {len(calls)} endpoints and {len(guests)} guests', flush=True)
    stopping.wait()
    for ping in pings:
        ping.terminate()
        ping.wait()
    for watcher in watchers:
        watcher.join()
    leave_network()
    report: dict[str, dict[str, dict[str, object]]] = {}
    for kind, seen in ('apis', apis), ('guests', guests):
        for series in seen.values():
            series.close(time.time())
        report[kind] = {name: series.report() for name, series in seen.items()}
    show(report)
    if path:
        with open(path, 'w') as output:
            json.dump({'seconds': round(time.time() - began, 1), **report}, output, indent=1)


def stop(_number: int, _frame: types.FrameType | None) -> None:
    """Handle a signal."""
    stopping.set()


def main() -> int:
    """Read the arguments and probe."""
    parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    parser.add_argument('--json', default='', help='write the report to this file as well')
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    probe(options.json)
    return 0


if __name__ == '__main__':
    sys.exit(main())
