"""The bus: what may be used, and what an endpoint lets be called."""

import inspect
import socket
from typing import ClassVar

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service import context, exception, rpc
from upgrade_service.conductor import manager as conductor_manager
from upgrade_service.conductor import rpcapi as conductor_rpcapi
from upgrade_service.engine import manager as engine_manager
from upgrade_service.engine import reporter
from upgrade_service.engine import rpcapi as engine_rpcapi
from upgrade_service.tests import base


class TestSurface(base.TestCase):
    """Everything that a message can have called, in one list to be reviewed with each change."""

    EXPOSED: ClassVar = {
        engine_manager.AgentManager: 'describe keys order probe recorded revoke',
        conductor_manager.ConductorManager: 'advance discover enroll facts heartbeat report',
    }

    def test_what_the_bus_can_reach(self):
        for endpoint, expected in self.EXPOSED.items():
            found = [
                n for n in dir(endpoint) if getattr(getattr(endpoint, n, None), 'exposed', False)
            ]
            self.assertEqual(expected.split(), sorted(found))

    def test_nothing_is_served_but_by_that_list(self):
        """Servers are made at one place, and that place takes exposed methods only."""
        source = inspect.getsource(rpc.get_server)
        self.assertIn('access_policy=dispatcher.ExplicitRPCAccessPolicy', source)
        for module in (conductor_manager, engine_manager):
            self.assertNotIn('get_rpc_server', inspect.getsource(module))


class TestVersionCap(base.TestCase):
    """While our own code is mixed, nothing is sent that an older peer would not know."""

    def setUp(self):
        super().setUp()
        self.addCleanup(rpc.use, None)
        self.addCleanup(rpc.reset)
        options.register_opts(cfg.CONF)
        cfg.CONF([], default_config_files=[])
        rpc.reset()
        rpc.use('fake://')

    def test_above_the_cap_nothing_is_sent(self):
        self.addCleanup(cfg.CONF.clear_override, 'engine', 'upgrade_levels')
        for cap, sent in ((None, True), ('1.0', True), ('1.1', True), ('0.9', False)):
            cfg.CONF.set_override('engine', cap, 'upgrade_levels')
            client = engine_rpcapi.EngineAPI(cfg.CONF)._client.prepare(version='1.0')
            self.assertEqual(sent, client.can_send_version(), cap)
        # a message that cannot be sent is a lost one, as any other
        engine_rpcapi.EngineAPI(cfg.CONF).describe('a', {'payload': '', 'kid': '', 'sig': ''})

    def test_conductors(self):
        self.addCleanup(cfg.CONF.clear_override, 'conductor', 'upgrade_levels')
        cfg.CONF.set_override('conductor', '0.9', 'upgrade_levels')
        self.assertFalse(reporter.Conductors(cfg.CONF).cast('heartbeat', agent='a'))
        conductor_rpcapi.ConductorAPI(cfg.CONF).advance(context.system(), 'u')


class TestTransport(base.TestCase):
    def setUp(self):
        super().setUp()
        self.addCleanup(rpc.use, None)
        self.addCleanup(rpc.reset)
        self.conf = cfg.CONF
        options.register_opts(self.conf)
        self.conf([], default_config_files=[])
        self.addCleanup(self.conf.clear_override, 'insecure_lab', 'trust')
        rpc.reset()

    def test_a_bus_across_the_network_needs_tls(self):
        rpc.use('rabbit://u:p@bus.example.org:5672/')
        error = self.assertRaises(exception.Untrusted, rpc.get_transport, self.conf)
        self.assertIn('bus.example.org', str(error))
        self.assertNotIn('u:p', str(error))

    def test_a_lab_may_go_without(self):
        self.conf.set_override('insecure_lab', True, 'trust')
        rpc.use('rabbit://u:p@bus.example.org:5672/')
        self.assertIsNotNone(rpc.get_transport(self.conf))

    def test_loopback_needs_none(self):
        for url in ('fake://', 'rabbit://u:p@127.0.0.1:5672/'):
            rpc.reset()
            rpc.use(url)
            self.assertIsNotNone(rpc.get_transport(self.conf))


class TestDeadBus(base.TestCase):
    """Nobody listens at the bus's address: what is said is lost, and nothing else happens."""

    def setUp(self):
        super().setUp()
        self.addCleanup(rpc.use, None)
        self.addCleanup(rpc.reset)
        options.register_opts(cfg.CONF)
        cfg.CONF([], default_config_files=[])
        with socket.socket() as closed:
            closed.bind(('127.0.0.1', 0))
            port = closed.getsockname()[1]
        rpc.reset()
        rpc.use(f'rabbit://u:p@127.0.0.1:{port}/')

    def test_a_ring_is_lost(self):
        conductor_rpcapi.ConductorAPI(cfg.CONF).advance(context.system(), 'u')

    def test_a_report_is_not_passed_on(self):
        conductor_rpcapi.ConductorAPI(cfg.CONF).pass_on(context.system(), 'peer', {})

    def test_an_order_is_lost(self):
        engine_rpcapi.EngineAPI(cfg.CONF).order('a', {'payload': '', 'kid': '', 'sig': ''})

    def test_an_engine_is_told_that_it_was_not_heard(self):
        self.assertFalse(reporter.Conductors(cfg.CONF).cast('heartbeat', agent='a'))
