"""A cloud made of HTTP endpoints, to try the service on and to measure it with.

Keystone, nova, neutron, cinder, placement and glance answer as the real ones do, as far
as upgrading a cloud needs them, on one loopback port; behind them is one state in memory
(:mod:`upgrade_service.simulator.cloud`) with hosts that run units, servers that live-migrate
in time and faults that can be injected. Every host has an endpoint of its own, through
which a version is switched or a unit stopped; the ``simulated`` strategy uses it.
"""
