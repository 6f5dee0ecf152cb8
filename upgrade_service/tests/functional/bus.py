"""The message bus in the hands of someone with every right on it."""

import json
from typing import Any
import uuid

import fixtures
import kombu

from upgrade_service import rpc

Row = dict[str, Any]


class Bus(fixtures.Fixture):
    """Speaks AMQP itself, past everything that our own code would refuse to send."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self._url = url.replace('rabbit://', 'amqp://')

    def _setUp(self) -> None:
        self._connection = kombu.Connection(self._url)
        self.addCleanup(self._connection.release)
        self._channel = self._connection.channel()

    def cast(self, topic: str, method: str, **arguments: Any) -> None:
        """Send what oslo.messaging would send for a cast."""
        said = {
            'method': method,
            'args': arguments,
            'version': '1.0',
            'namespace': None,
            '_unique_id': uuid.uuid4().hex,
        }
        self.publish(topic, {'oslo.version': '2.0', 'oslo.message': json.dumps(said)})

    def publish(self, topic: str, body: Any) -> None:
        """Send anything."""
        producer = kombu.Producer(self._channel)
        producer.publish(body, exchange=topic, routing_key=topic, serializer='json')

    def cut(self, topic: str) -> None:
        """Lose every message to a topic from now on."""
        self._channel.queue_unbind(queue=topic, exchange=topic, routing_key=topic)

    def mend(self, topic: str) -> None:
        """Deliver messages to a topic again."""
        self._channel.queue_bind(queue=topic, exchange=topic, routing_key=topic)

    def empty(self, topic: str) -> None:
        """Throw away what waits in a queue."""
        self._channel.queue_purge(queue=topic)

    def listen(self, topic: str) -> str:
        """Have a copy of every message to a topic; return the queue that takes them."""
        queue: str = self._channel.queue_declare(exclusive=True, auto_delete=True).queue
        self._channel.queue_bind(queue=queue, exchange=topic, routing_key=topic)
        return queue

    def heard(self, queue: str) -> list[Row]:
        """Return the messages that a queue took: {method, args}."""
        found = []
        while (message := self._channel.basic_get(queue=queue, no_ack=True)) is not None:
            found.append(json.loads(json.loads(message.body)['oslo.message']))
        return found


def engine(agent: str) -> str:
    """Return the topic of an engine."""
    return rpc.engine_topic(agent)
