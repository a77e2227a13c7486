"""The producer: what it sends is on every in-sync replica, once and in order, or it says that it failed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from service.kafka.cluster import describe_cluster
from service.kafka.connection import close, connection_options
from service.settings import Settings

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
