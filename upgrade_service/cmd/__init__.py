"""Entry points of the processes."""

from collections.abc import Sequence
import sys
from types import ModuleType
from typing import Any


class _NoEventlet:
    """Keep eventlet out: some libraries import it merely because it is installed."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> Any:
        if name.partition('.')[0] == 'eventlet':
            raise ImportError('this service runs on native threads')
        return None


def prepare() -> None:
    """Choose native threads, before anything else touches oslo.service."""
    if any(isinstance(f, _NoEventlet) for f in sys.meta_path):
        return
    sys.meta_path.insert(0, _NoEventlet())
    from oslo_service import backend

    backend.init_backend(backend.BackendType.THREADING)
