"""What anybody may read: the versions that are served."""

from typing import Any

from upgrade_service.api import ask as asks
from upgrade_service.api import microversion

Ask = asks.Ask
Answer = asks.Answer


def _version(base: str) -> dict[str, Any]:
    low, high = microversion.text(microversion.MIN), microversion.text(microversion.MAX)
    return {
        'id': f'v{low}',
        'status': 'CURRENT',
        'version': high,
        'min_version': low,
        'max_version': high,
        'links': [{'rel': 'self', 'href': f'{base}/v1/'}],
    }


def index(ask: Ask) -> Answer:
    """List the versions."""
    return Answer({'versions': [_version(ask.base)]})


def show(ask: Ask) -> Answer:
    """Show version 1."""
    return Answer({'version': _version(ask.base)})
