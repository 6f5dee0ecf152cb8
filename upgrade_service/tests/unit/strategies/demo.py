"""A little project that can be installed offline, and a systemd that is a thread.

The wheels are made here, byte by byte: no build backend, no network.
"""

import base64
import hashlib
import json
import os
import pathlib
import signal
import socketserver
import subprocess
import sys
import threading
import zipfile

PROJECT = """
project: demo
distribution: demo-service
module: demo
summary: A little project
sources: [{id: us, ref: 'this test'}]
upgrade:
  adjacent: {manner: rolling, source: us, proof: doc}
  slurp: {manner: cold, source: us, proof: doc}
services:
  demo-api: {plane: control, start: 1, api: {type: demo, path: /, codes: [200]}}
  demo-worker: {plane: control, start: 1}
commands:
  upgrade_check:
    - argv: [demo-manage, '{config}', check]
      code: target
      source: us
      proof: doc
      exits: {0: done, 255: broken}
  db_expand: [{argv: [demo-manage, sync], code: target, source: us, proof: doc}]
  db_purge:
    - {argv: [demo-manage, purge, '{days}', '{date}'], code: target, source: us, proof: doc}
  online_migrations:
    - argv: [demo-manage, migrate]
      code: target
      source: us
      proof: doc
      exits: {0: done, 1: again}
config: {args: [--config-file, /etc/demo.conf]}
prove: {imports: [demo, demo.main], scripts: [demo-manage, demo-api]}
databases: [demo]
"""

CODE = """
import http.server, os, sys, time
VERSION = '{version}'
{extra}

def manage():
    if '--help' in sys.argv:
        return 0
    print(VERSION, *sys.argv[1:])
    if 'migrate' in sys.argv:
        with open(os.environ['DEMO_STATE'], 'a') as f:
            f.write('x')
        return 0 if os.path.getsize(os.environ['DEMO_STATE']) >= 3 else 1
    return 255 if 'check' in sys.argv else 0

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(VERSION.encode())

def api():
    if '--help' in sys.argv:
        return 0
    http.server.HTTPServer(('127.0.0.1', int(sys.argv[1])), Handler).serve_forever()
"""

SYSTEMCTL = """#!/usr/bin/python3 -IS
import json, socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect({path!r})
s.sendall(json.dumps(sys.argv[1:]).encode() + b'\\n')
answer = json.loads(s.makefile().readline())
sys.stdout.write(answer['out'])
sys.exit(answer['rc'])
"""


def make_wheel(folder, version, extra=''):
    """Make demo_service-VERSION-py3-none-any.whl in a folder."""
    info = f'demo_service-{version}.dist-info'
    scripts = 'demo-manage = demo.main:manage\ndemo-api = demo.main:api\n'
    files = {
        'demo/__init__.py': '',
        'demo/main.py': CODE.format(version=version, extra=extra),
        f'{info}/METADATA': f'Metadata-Version: 2.1\nName: demo-service\nVersion: {version}\n',
        f'{info}/WHEEL': 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n',
        f'{info}/entry_points.txt': f'[console_scripts]\n{scripts}',
    }
    record = ''
    path = pathlib.Path(folder, f'demo_service-{version}-py3-none-any.whl')
    with zipfile.ZipFile(path, 'w') as wheel:
        for name, text in files.items():
            wheel.writestr(name, text)
            digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest())
            record += f'{name},sha256={digest.decode().rstrip("=")},{len(text)}\n'
        wheel.writestr(f'{info}/RECORD', f'{record}{info}/RECORD,,\n')


#: the build backend of the source tree: makes the same wheel from the tree itself
BACKEND = """
import pathlib, sys
sys.path.insert(0, {here!r})
import demo

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    version = pathlib.Path('VERSION').read_text()
    demo.make_wheel(wheel_directory, version)
    return f'demo_service-{{version}}-py3-none-any.whl'
"""


def make_source(folder, version):
    """Make a source tree that pip can build without anything from an index."""
    folder.mkdir(exist_ok=True)
    (folder / 'VERSION').write_text(version)
    (folder / 'backend.py').write_text(BACKEND.format(here=str(pathlib.Path(__file__).parent)))
    (folder / 'pyproject.toml').write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )


#: stands for uv where it is not about the installer: unpacks a wheel, makes its scripts
INSTALLER = """#!/usr/bin/python3 -IS
import glob, os, shutil, sys, zipfile
args = sys.argv[1:]
bins = os.path.dirname(args[args.index('--python') + 1])
links = args[args.index('--find-links') + 1]
name, _, version = args[args.index('--') + 1].partition('==')
found = glob.glob(f'{links}/{name.replace("-", "_")}-{version}-*.whl')
if not found:
    sys.exit(f'no {name} {version} in {links}')
(site,) = glob.glob(f'{bins}/../lib/python3*/site-packages')
for old in glob.glob(f'{site}/demo_service-*.dist-info'):
    shutil.rmtree(old)
zipfile.ZipFile(found[0]).extractall(site)
for script, function in (('demo-manage', 'manage'), ('demo-api', 'api')):
    path = f'{bins}/{script}'
    with open(path, 'w') as f:
        f.write(f'#!{bins}/python\\nimport sys\\nfrom demo.main import {function}\\n'
                f'sys.exit({function}())\\n')
    os.chmod(path, 0o755)
"""


class Systemd:
    """Starts and stops units as systemctl asks it to."""

    def __init__(self, folder, units):
        """`units`: {name: argv}."""
        self.units, self.processes = units, {}
        self.calls = []
        path = str(folder / 'systemd.sock')
        self.systemctl = folder / 'systemctl'
        self.systemctl.write_text(SYSTEMCTL.format(path=path))
        self.systemctl.chmod(0o755)
        owner = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self):
                rc, out = owner.do(json.loads(self.rfile.readline()))
                self.wfile.write(json.dumps({'rc': rc, 'out': out}).encode() + b'\n')

        self._server = socketserver.ThreadingUnixStreamServer(path, Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        """End everything."""
        self._server.shutdown()
        self._server.server_close()
        for name in list(self.processes):
            self.stop(name)

    def do(self, argv):
        """Answer a systemctl command: (exit status, output)."""
        verb, names = argv[0], [a for a in argv[1:] if a in self.units]
        self.calls.append((verb, *names))
        if '--value' in argv:
            return 0, self._shown(names[0]).split('ActiveState=')[1].split()[0]
        if verb == 'show':
            return 0, '\n'.join(self._shown(n) for n in self.units)
        if verb in ('stop', 'restart'):
            for name in names:
                self.stop(name)
        if verb == 'restart':
            for name in names:
                self.processes[name] = subprocess.Popen(self.units[name], cwd='/')
        return 0, ''

    def _shown(self, name):
        pid = self.pid(name)
        state = 'active' if pid else 'failed' if name in self.processes else 'inactive'
        return (
            f'Id={name}\nLoadState=loaded\nActiveState={state}\nUnitFileState=enabled\n'
            f'MainPID={pid}\n'
        )

    def pid(self, name):
        """The process of a unit, or 0."""
        process = self.processes.get(name)
        return process.pid if process and process.poll() is None else 0

    def stop(self, name):
        """End a unit."""
        process = self.processes.get(name)
        if process and process.poll() is None:
            os.kill(process.pid, signal.SIGTERM)
            process.wait()


PYTHON = os.path.realpath(sys.executable)
