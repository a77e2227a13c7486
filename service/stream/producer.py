"""Producers, and the delivery of records with confirmation."""

from __future__ import annotations

import asyncio
import contextlib
from asyncio import Future
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Protocol

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.structs import RecordMetadata

from service.settings import Settings
from service.stream.connection import close, connection_options, describe_cluster

MAX_REQUEST_BYTES = 1_000_000
"""The maximum size of a record, in bytes. A larger one is refused before it is sent. The limit must be below Kafka's
default of 1 MiB for a batch.
"""

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0


async def make_producer(settings: Settings, *, timeout: float = 30) -> AIOKafkaProducer:  # noqa: ASYNC109 - limits a request
    """Create a producer with `acks=all` that is not started yet. A send fails after `timeout` seconds.

    The producer is idempotent, except with the embedded broker, which does not support that.

    Raises:
        aiokafka.errors.KafkaError: Kafka does not answer.
        SettingsError: The settings of the connection cannot be used.
    """
    cluster = await describe_cluster(settings)
    return AIOKafkaProducer(
        **connection_options(settings),
        acks="all",
        enable_idempotence=not cluster.is_embedded,
        compression_type="gzip",
        linger_ms=5,
        max_request_size=MAX_REQUEST_BYTES,
        request_timeout_ms=int(timeout * 1000),
    )


@asynccontextmanager
async def running_producer(settings: Settings) -> AsyncIterator[AIOKafkaProducer]:
    """Start a producer, and stop it within a bounded time even if Kafka does not answer.

    Raises:
        aiokafka.errors.KafkaError: Kafka does not answer.
        TimeoutError: The producer did not start in time.
    """
    producer = await make_producer(settings)
    try:
        await asyncio.wait_for(producer.start(), _START_TIMEOUT)
        yield producer
    finally:
        await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Flush and stop a producer, or abandon it after a while.

    Kafka may not have the records that are not confirmed by then. They were never reported as sent.
    """
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await producer.flush()  # separately, because a `stop` that is interrupted while it flushes leaves a task
            await producer.stop()
    except TimeoutError:
        pass  # the producer is abandoned below
    finally:
        await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer whose stop was interrupted. Otherwise its sender would retry until Kafka answers."""
    producer._closed = True  # noqa: SLF001 - the only public way is `stop`, which waits for Kafka
    ended = asyncio.create_task(producer._sender.close())  # noqa: SLF001 - as above
    await close(producer.client)  # now the requests that the sender waits for fail
    with contextlib.suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(ended, _STOP_TIMEOUT)


DELIVERY_TIMEOUT = 30.0
"""Seconds that one call of `deliver` may take."""


class Message(Protocol):
    """A record to send, such as `event.to_kafka()` returns."""

    @property
    def topic(self) -> str: ...  # noqa: D102 - the names are Kafka's
    @property
    def key(self) -> bytes | None: ...  # noqa: D102
    @property
    def value(self) -> bytes | None: ...  # noqa: D102
    @property
    def headers(self) -> list[tuple[str, bytes]]: ...  # noqa: D102


class NotDelivered(Exception):  # noqa: N818 - a state, with the text of its cause
    """Kafka confirmed the first `confirmed` records of the call. It may or may not have stored the others."""

    def __init__(self, confirmed: int, cause: Exception) -> None:
        super().__init__(str(cause) or f"no answer within {DELIVERY_TIMEOUT:.0f} s")
        self.confirmed = confirmed


async def deliver(producer: AIOKafkaProducer, messages: Iterable[Message]) -> list[RecordMetadata]:
    """Send the records, wait until Kafka has confirmed all of them, and return their partitions and offsets.

    Raises:
        NotDelivered: A record was refused, or was not confirmed in time.
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
            future.cancel()  # nobody reads the results that are still pending
        raise NotDelivered(confirmed, error) from error


async def _send(producer: AIOKafkaProducer, message: Message) -> Future[RecordMetadata]:
    future: Future[RecordMetadata] = await producer.send(
        message.topic, key=message.key, value=message.value, headers=message.headers
    )
    return future


def _confirmed(sent: list[Future[RecordMetadata]]) -> int:
    """Return how many records Kafka confirmed before the first one that it did not confirm."""
    states = [future.done() and not future.cancelled() and future.exception() is None for future in sent]
    return states.index(False) if False in states else len(states)
