"""Producers, and waiting for what they deliver."""

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
"""A record larger than this is refused before it is sent; below Kafka's own default of 1 MiB a batch."""

_START_TIMEOUT = 30.0
_STOP_TIMEOUT = 5.0


async def make_producer(settings: Settings, *, timeout: float = 30) -> AIOKafkaProducer:  # noqa: ASYNC109 - a request's bound
    """Make a producer, not yet started, with `acks=all`; a send fails after `timeout` seconds.

    It is idempotent on every broker but the embedded one, which cannot.

    Raises:
        aiokafka.errors.KafkaError: when Kafka does not answer.
        SettingsError: as `connection_options`.
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
    """Start a producer, and stop it in bounded time whatever Kafka does.

    Raises:
        aiokafka.errors.KafkaError: when Kafka does not answer.
        TimeoutError: when Kafka answers, but not in time.
    """
    producer = await make_producer(settings)
    try:
        await asyncio.wait_for(producer.start(), _START_TIMEOUT)
        yield producer
    finally:
        await _stop(producer)


async def _stop(producer: AIOKafkaProducer) -> None:
    """Send what waits, or leave it after a while: what is not confirmed by then was never claimed as sent."""
    try:
        async with asyncio.timeout(_STOP_TIMEOUT):
            await producer.flush()  # first and by itself: a `stop` that is interrupted here leaves a task behind
            await producer.stop()
    except TimeoutError:
        pass  # as the docstring says
    finally:
        await _abandon(producer)


async def _abandon(producer: AIOKafkaProducer) -> None:
    """End a producer whose stop was cut short: its sender would go on trying for as long as Kafka is away."""
    producer._closed = True  # noqa: SLF001 - aiokafka has no other way than `stop`, which waits for Kafka
    ended = asyncio.create_task(producer._sender.close())  # noqa: SLF001 - as above
    await close(producer.client)  # what the sender still waits for fails now
    with contextlib.suppress(TimeoutError, KafkaError):
        await asyncio.wait_for(ended, _STOP_TIMEOUT)


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
