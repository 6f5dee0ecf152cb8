"""What OpenStackClient asks of a plugin: a name, versions, options and a client."""

import argparse
from typing import Any

from osc_lib import exceptions, utils

from upgrade_service.osc import proxy

API_NAME = 'upgrade'
API_VERSION_OPTION = 'os_upgrade_api_version'
DEFAULT_API_VERSION = '1'
API_VERSIONS = ('1',)


def make_client(instance: Any) -> proxy.Proxy:
    """Return the SDK proxy of the upgrade service for OSC's client manager.

    :raises CommandError: the cloud has no such service, or it does not answer.
    """
    connection = instance.sdk_connection
    connection.add_service(proxy.UpgradeService(proxy.SERVICE_TYPE))
    client = proxy.reach(connection)
    if not isinstance(client, proxy.Proxy):
        raise exceptions.CommandError(
            f'the catalog of this cloud has no service of type {proxy.SERVICE_TYPE}; '
            f'see `openstack catalog list`'
        )
    return client


def build_option_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    """Add the option every OSC plugin has: the version of its API."""
    parser.add_argument(
        '--os-upgrade-api-version',
        metavar='<upgrade-api-version>',
        default=utils.env('OS_UPGRADE_API_VERSION', default=DEFAULT_API_VERSION),
        help=f'Upgrade API version, default={DEFAULT_API_VERSION} (Env: OS_UPGRADE_API_VERSION)',
    )
    return parser
