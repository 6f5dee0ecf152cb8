"""Clients that ask for things, ask again when they hear nothing, and note what they were told."""

import contextlib
import json
import random
import socket
import threading
import time
from typing import Any
import urllib.error
import urllib.request
import uuid

from upgrade_service.tests.chaos import place

Row = dict[str, Any]
TRIES = 6
OVER = ('succeeded', 'cancelled', 'rolled_back')


class Client:
    """One of them. Without an API it writes the intent as the break-glass command does."""

    def __init__(self, name: str, run: Any, lose: float = 0.0, seed: int = 0) -> None:
        self.name, self._run = name, run
        self._lose, self._dice = lose, random.Random(seed)
        self._log = run.folder / 'clients'

    def ask(self, verb: str, path: str = '', body: Row | None = None) -> Row | None:
        """Ask for a verb, with one key, until there is an answer; None: nobody answered."""
        key, answer = uuid.uuid4().hex, None
        for _ in range(TRIES):
            began = time.time()
            answer = self._once(key, path + verb, body or {})
            # an answer that was lost on its way is as good as none
            lost = answer is not None and self._dice.random() < self._lose
            place.append(
                self._log, client=self.name, key=key, verb=verb, path=path, body=body or {},
                began=began, answer=answer, lost=lost,
            )  # fmt: skip
            if answer is not None and answer['status'] < 500 and not lost:
                return answer
            time.sleep(0.1)
        return None

    def _once(self, key: str, path: str, body: Row) -> Row | None:
        request = urllib.request.Request(
            f'http://127.0.0.1:{self._run.scene.port}/v1/upgrades/{self._run.id}/{path}',
            method='POST',
            data=json.dumps(body).encode(),
            headers={'Content-Type': 'application/json', 'Idempotency-Key': key},
        )
        try:
            with urllib.request.urlopen(request, timeout=5) as got:
                return {'status': got.status, 'body': json.loads(got.read() or b'{}')}
        except urllib.error.HTTPError as e:
            with e:
                return {'status': e.code, 'body': {'text': e.read().decode(errors='replace')}}
        except (OSError, ValueError):
            return None

    def there(self) -> bool:
        """Whether anybody listens."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection(('127.0.0.1', self._run.scene.port), timeout=1),
        ):
            return True
        return False

    def go_on(self, row: Row, steps: list[Row]) -> None:
        """Do what an operator does with an upgrade that waits for a person."""
        if row['state'] == 'paused':
            self.ask('approve' if row['gate'] else 'resume')
        elif row['state'] == 'blocked':
            stuck = [s for s in steps if s['state'] in ('failed', 'unknown')]
            for step in stuck:
                self.ask('retry', f'steps/{step["ord"]}/', {'acknowledge_risk': True})
            if not stuck and row['blocked_reason'] not in ('step_failed', 'stuck'):
                self.ask('resume', body={'acknowledge': row['blocked_reason']})
            time.sleep(0.2)


def bother(client: Client, ended: threading.Event, dice: random.Random, verbs: list[str]) -> None:
    """Ask for verbs at random until told to end."""
    while not ended.wait(dice.uniform(0.1, 0.9)):
        with contextlib.suppress(Exception):
            client.ask(dice.choice(verbs))
