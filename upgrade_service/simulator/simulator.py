"""The simulator as a thing to start and stop: all APIs on one loopback port."""

from collections.abc import Callable
import threading
import time
from types import TracebackType
from typing import Any, Self

from cheroot import wsgi

from upgrade_service.simulator import (
    block_storage,
    compute,
    hosts,
    identity,
    image,
    network,
    placement,
)
from upgrade_service.simulator import spec as specs
from upgrade_service.simulator.cloud import Cloud
from upgrade_service.simulator.http import Application

APIS = (
    identity.API,
    compute.API,
    network.API,
    block_storage.API,
    placement.API,
    image.API,
    hosts.API,
    hosts.CONTROL,
)


class Simulator:
    """A simulated cloud behind HTTP; a context manager too.

    `speed` divides every duration; port 0 takes a free one. `cloud` is the state: use
    ``with simulator.cloud.turn():`` around any direct look at it.
    """

    def __init__(
        self,
        spec: specs.Spec | None = None,
        port: int = 0,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
        threads: int = 10,
    ) -> None:
        self.cloud = Cloud(spec or specs.default_spec(), clock=clock, speed=speed)
        self.application = Application(self.cloud, APIS)
        self._server = wsgi.Server(
            ('127.0.0.1', port),
            self.application,
            numthreads=threads,
            request_queue_size=128,
            timeout=60,
            shutdown_timeout=1,
        )
        self._server.expiration_interval = 0.1  # how long stop() may have to wait, too
        self._thread: threading.Thread | None = None

    def start(self) -> Self:
        """Bind the port and serve in threads."""
        self._server.prepare()
        self._thread = threading.Thread(target=self._server.serve, name='simulator', daemon=True)
        self._thread.start()
        return self

    def stop(self) -> None:
        """Stop serving; the state remains."""
        self._server.stop()
        if self._thread is not None:
            self._thread.join(timeout=10)
            self._thread = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port that was taken."""
        port: int = self._server.bind_addr[1]
        return port

    @property
    def url(self) -> str:
        """Base URL, without a slash at its end."""
        return f'http://127.0.0.1:{self.port}'

    def clouds(self, name: str = 'simulated', user: str = 'admin') -> dict[str, Any]:
        """Return what belongs into a clouds.yaml."""
        return {
            'clouds': {
                name: {
                    'auth_type': 'password',
                    'auth': {
                        'auth_url': f'{self.url}/identity/v3',
                        'username': user,
                        'password': self.cloud.spec.users[user][0],
                        'project_name': 'admin',
                        'user_domain_name': 'Default',
                        'project_domain_name': 'Default',
                    },
                    'region_name': self.cloud.spec.region,
                    'identity_api_version': 3,
                }
            }
        }

    def register(self, service_type: str, name: str, url: str) -> None:
        """Add a service to the catalog, for example the upgrade service itself."""
        with self.cloud.turn():
            self.cloud.extra_services[service_type] = name
            self.cloud.extra_endpoints[service_type] = url
