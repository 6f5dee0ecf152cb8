"""Messages that are lost, doubled or late: what a bus may do to any of them."""

import random
import threading
from typing import Any

from upgrade_service.tests.chaos import place


def install(told: place.Told) -> None:
    """Do it to a part of what this process sends."""
    from oslo_messaging import transport

    send = transport.Transport._send
    dice = random.Random(told.seed)

    def lossy(self: Any, target: Any, ctxt: Any, message: Any, *args: Any, **kw: Any) -> Any:
        fate = dice.random() / told.lossy
        if fate >= 1 or message['method'] == 'heartbeat':
            return send(self, target, ctxt, message, *args, **kw)
        kind = ('lost', 'doubled', 'late')[int(fate * 3)]
        place.append(
            told.path('faults'), kind=f'message {kind}', name=told.name, what=message['method']
        )
        if kind == 'doubled':
            send(self, target, dict(ctxt), dict(message), *args, **kw)
            return send(self, target, dict(ctxt), dict(message), *args, **kw)
        if kind == 'late':
            later = threading.Timer(
                dice.uniform(0.1, 1.5), send, (self, target, ctxt, message, *args), kw
            )
            later.daemon = True
            later.start()
        return None

    transport.Transport._send = lossy
