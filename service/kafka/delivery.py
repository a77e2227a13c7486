"""Handing records to Kafka and knowing which of them it has."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

DELIVERY_TIMEOUT = 30.0
"""Seconds for one call of `deliver`."""


class Message(Protocol):
    """A record to send: what `event.to_kafka()` gives."""

    @property
    def topic(self) -> str: ...  # noqa: D102 - Kafka's own words
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> list[tuple[str, bytes]]: ...  # noqa: D102


class NotDelivered(Exception):  # noqa: N818 - a state: the text is the cause's
    """Kafka has the first `confirmed` records of the call; of the others nothing is known."""

    def __init__(self, confirmed: int, cause: Exception) -> None:
        super().__init__(str(cause) or f"no answer within {DELIVERY_TIMEOUT:.0f} s")
        self.confirmed = confirmed


async def deliver(producer: AIOKafkaProducer, messages: Iterable[Message]) -> list[RecordMetadata]:
    """Send the records and wait until Kafka has every one of them; say where they are.

    Raises:
        NotDelivered: for the first record that was refused, or not confirmed in time.
    """
    sent: list[Future[RecordMetadata]] = []
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT):
            for message in messages:
                sent.append(await _send(producer, message))  # noqa: PERF401 - what was sent before an error counts
            if sent:
                await asyncio.wait(sent)
        return [future.result() for future in sent]
    except (KafkaError, TimeoutError) as error:
        confirmed = _confirmed(sent)
        for future in sent:
            future.cancel()  # nobody will ask for an answer that is still open
        raise NotDelivered(confirmed, error) from error


async def _send(producer: AIOKafkaProducer, message: Message) -> Future[RecordMetadata]:
    future: Future[RecordMetadata] = await producer.send(
        message.topic, key=message.key, value=message.value, headers=message.headers
    )
    return future


def _confirmed(sent: list[Future[RecordMetadata]]) -> int:
    """Count the records from the first on that Kafka confirmed."""
    states = [future.done() and not future.cancelled() and future.exception() is None for future in sent]
    return states.index(False) if False in states else len(states)
