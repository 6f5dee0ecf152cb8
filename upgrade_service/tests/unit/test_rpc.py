"""The bus: what may be used, and what an endpoint lets be called."""

from oslo_config import cfg

from upgrade_service import conf as options
from upgrade_service import exception, rpc
from upgrade_service.tests import base


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
