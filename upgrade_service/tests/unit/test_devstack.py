"""The devstack plugin, run by a real bash with devstack itself played by stubs that log calls.

Each stub writes `name arg arg …` to a log; the tests read the log and the files that the plugin
wrote. Options are checked against this log only: whether a service starts is devstack's test.
"""

import os
import pathlib
import stat
import subprocess

import upgrade_service
from upgrade_service.tests import base

DEVSTACK = pathlib.Path(upgrade_service.__file__).parent.parent / 'devstack'

#: What devstack offers to plugins and this one calls; each is replaced by a line in the log.
LOGGED = (
    'configure_keystone_authtoken_middleware create_service_user define_plugin echo_summary '
    'enable_service get_or_create_endpoint get_or_create_role get_or_create_service git_clone '
    'iniset iniset_rpc_backend recreate_database remove_uwsgi_config run_process setup_develop '
    'setup_logging start_tls_proxy stop_process upgrade-service-manage wait_for_service '
    'write_uwsgi_config'
).split()

PRELUDE = r"""
set -eu
log() { printf '%s\n' "$*" >>"$LOG"; }
for name in $LOGGED; do eval "function $name { log $name \"\$@\"; }"; done
is_service_enabled() {
    local name
    for name in "$@"; do [[ " $ENABLED " == *" $name "* ]] && return 0; done
    return 1
}
get_python_exec_prefix() { echo "$BIN"; }
database_connection_url() { echo "mysql+pymysql://root:secret@127.0.0.1/$1?charset=utf8"; }
hostname() { echo node1; }
which() { echo "/usr/bin/$1"; }
die() { log die "$@"; exit 1; }
sudo() { log sudo "$@"; "$@"; }
install() { mkdir -p "${@: -1}"; }
openstack() { log openstack "$@"; echo '{"token": "once"}'; }
source "$DEVSTACK/settings"
source "$DEVSTACK/plugin.sh" "$@"
"""


class TestDevstackPlugin(base.TestCase):
    def setUp(self):
        super().setUp()
        self.folder = pathlib.Path(self.create_tempfiles([('log', '')], ext='')[0]).parent
        self.log = self.folder / 'log'
        self.bin = self.folder / 'bin'
        self.bin.mkdir()
        manage = self.bin / 'upgrade-service-manage'
        manage.write_text('#!/bin/bash\necho "upgrade-service-manage $*" >>"$LOG"\n')
        manage.chmod(0o755)
        self.conf_dir = self.folder / 'etc'

    def run_plugin(
        self, *phase, enabled='upgrade-api upgrade-conductor upgrade-engine', **environment
    ):
        """Source the plugin as devstack does for a phase; the calls it made, one a line."""
        self.log.write_text('')
        variables = {
            'PATH': os.environ['PATH'],
            'BIN': str(self.bin),
            'DEST': '/opt/stack',
            'DEVSTACK': str(DEVSTACK),
            'ENABLED': enabled,
            'ENABLE_DEBUG_LOG_LEVEL': 'True',
            'GIT_BASE': 'https://opendev.org',
            'KEYSTONE_SERVICE_URI': 'http://192.0.2.1/identity',
            'LOG': str(self.log),
            'LOGGED': ' '.join(LOGGED),
            'REGION_NAME': 'RegionOne',
            'SERVICE_DOMAIN_NAME': 'Default',
            'SERVICE_HOST': '192.0.2.1',
            'SERVICE_PASSWORD': 'secret',
            'SERVICE_PROJECT_NAME': 'service',
            'SERVICE_TIMEOUT': '60',
            'STACK_USER': 'stack',
            'UPGRADE_SERVICE_CONF_DIR': str(self.conf_dir),
            'UPGRADE_SERVICE_STATE_DIR': str(self.folder / 'state'),
            **environment,
        }
        done = subprocess.run(
            ['bash', '-c', PRELUDE, 'stack.sh', *phase],
            env=variables,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(0, done.returncode, done.stderr)
        return self.log.read_text().splitlines()

    def iniset(self, calls):
        """The options set, as {(section, option): value}."""
        words = [call.split(' ', 4) for call in calls if call.startswith('iniset ')]
        self.assertEqual(
            {str(self.conf_dir / 'upgrade-service.conf')}, {word[1] for word in words}
        )
        return {(word[2], word[3]): word[4] for word in words}

    def test_install(self):
        calls = self.run_plugin('stack', 'install')
        self.assertIn('setup_develop /opt/stack/upgrade-service', calls)
        self.assertIn(
            'git_clone https://opendev.org/openstack/upgrade-service.git '
            '/opt/stack/upgrade-service master',
            calls,
        )

    def test_nothing_happens_when_no_service_is_enabled(self):
        for phase in (('stack', 'install'), ('stack', 'extra'), ('unstack',), ('clean',)):
            calls = self.run_plugin(*phase, enabled='n-api')
            self.assertEqual({'define_plugin', 'enable_service'}, {c.split()[0] for c in calls})

    def test_configuration(self):
        calls = self.run_plugin('stack', 'post-config')
        options = self.iniset(calls)
        self.assertEqual('keystone', options['api', 'auth_strategy'])
        self.assertIn('/upgrade_service?', options['database', 'connection'])
        self.assertEqual('node1', options['engine', 'host'])
        self.assertEqual(str(self.conf_dir / 'clouds.yaml'), options['conductor', 'clouds_file'])
        self.assertEqual(str(self.conf_dir / 'keys'), options['trust', 'keys_dir'])
        # Its broker has no TLS, which the service refuses unless it is told.
        self.assertEqual('True', options['trust', 'insecure_lab'])
        conf = self.conf_dir / 'upgrade-service.conf'
        self.assertIn(f'iniset_rpc_backend upgrade-service {conf}', calls)
        self.assertIn(f'configure_keystone_authtoken_middleware {conf} upgrade', calls)

    def test_cloud_credentials_are_private(self):
        self.run_plugin('stack', 'post-config')
        clouds = self.conf_dir / 'clouds.yaml'
        self.assertEqual(0o600, stat.S_IMODE(clouds.stat().st_mode))
        self.assertIn('auth_url: http://192.0.2.1/identity', clouds.read_text())

    def test_catalog(self):
        calls = self.run_plugin('stack', 'post-config')
        self.assertIn('create_service_user upgrade admin', calls)
        self.assertIn('get_or_create_service upgrade-service upgrade Upgrade Service', calls)
        self.assertIn('get_or_create_endpoint upgrade RegionOne http://192.0.2.1:9899', calls)
        self.assertIn('get_or_create_role upgrade_operator', calls)

    def test_api_listens_behind_a_tls_proxy(self):
        enabled = 'upgrade-api upgrade-conductor tls-proxy'
        calls = self.run_plugin('stack', 'post-config', enabled=enabled)
        self.assertIn('get_or_create_endpoint upgrade RegionOne https://192.0.2.1:9899', calls)
        self.assertTrue(self.uwsgi_call(calls).endswith('/upgrade :19899 upgrade-api'))
        calls = self.run_plugin('stack', 'extra', enabled=enabled)
        self.assertIn('start_tls_proxy upgrade-api * 9899 192.0.2.1 19899', calls)

    def test_api_is_a_wsgi_module(self):
        call = self.uwsgi_call(self.run_plugin('stack', 'post-config'))
        self.assertIn(' upgrade_service.api.wsgi:application /upgrade :9899 upgrade-api', call)

    def uwsgi_call(self, calls):
        return next(call for call in calls if call.startswith('write_uwsgi_config '))

    def test_order_of_start(self):
        self.run_plugin('stack', 'post-config')
        calls = self.run_plugin('stack', 'extra')
        conf = self.conf_dir / 'upgrade-service.conf'
        wanted = [
            'recreate_database upgrade_service',
            f'upgrade-service-manage --config-file {conf} db upgrade',
            f'upgrade-service-manage --config-file {conf} keys create',
            'run_process upgrade-api /usr/bin/uwsgi --procname-prefix upgrade-api '
            f'--ini {self.conf_dir}/upgrade-api-uwsgi.ini',
            'wait_for_service 60 http://192.0.2.1:9899/healthcheck',
            f'run_process upgrade-conductor {self.bin}/upgrade-service-conductor '
            f'--config-file {conf}',
            'openstack --os-cloud devstack-admin upgrade agent enroll node1 -f value -c bundle',
            f'run_process upgrade-engine {self.bin}/upgrade-service-engine '
            f'--config-file {conf} root root',
        ]
        self.assertEqual(wanted, [call for call in calls if call in wanted])

    def test_enrolment_bundle_is_private(self):
        self.run_plugin('stack', 'post-config')
        self.run_plugin('stack', 'extra')
        bundle = self.conf_dir / 'enroll.json'
        self.assertEqual('{"token": "once"}', bundle.read_text().strip())
        self.assertEqual(0o600, stat.S_IMODE(bundle.stat().st_mode))

    def test_no_engine_no_enrolment(self):
        calls = self.run_plugin('stack', 'extra', enabled='upgrade-api upgrade-conductor')
        started = {call.split()[1] for call in calls if call.startswith('run_process ')}
        self.assertEqual({'upgrade-api', 'upgrade-conductor'}, started)
        self.assertEqual([], [call for call in calls if call.startswith('openstack ')])

    def test_stop_engine_first(self):
        calls = self.run_plugin('unstack')
        stops = [call for call in calls if call.startswith('stop_process')]
        self.assertEqual(
            [f'stop_process upgrade-{name}' for name in ('engine', 'conductor', 'api')], stops
        )

    def test_clean_removes_what_configure_made(self):
        self.run_plugin('stack', 'post-config')
        self.assertTrue(self.conf_dir.exists())
        self.run_plugin('clean')
        self.assertFalse(self.conf_dir.exists())
        self.assertFalse((self.folder / 'state').exists())
