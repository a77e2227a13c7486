"""A steady publisher, and a prober that polls PostgreSQL until the effect of a probe is visible."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime

from aiokafka import AIOKafkaProducer

from bench.servers import connect
from events import KafkaRecord, ProgressLeveledUp
from service.settings import Settings

_POLL_SECONDS = 0.002
"""Shorter pauses would use a core of the measured processes. This pause adds a millisecond to the result."""
_WARM_UP = 200
"""Events before the first that counts. They open connections and prepare statements."""
_LATEST = 30
_FOUND = "SELECT user_id FROM public.user_licenses WHERE user_id = ANY($1)"


async def delays(settings: Settings, rate: int, events: int, every: int) -> list[float]:
    """Publish one event for each of the users 1 to `events`, and return the delay of every Nth in milliseconds.

    Raises:
        TimeoutError: a probe was not visible half a minute after the last event.
    """
    waiting: dict[int, float] = {}
    found: list[float] = []
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, acks="all")
    await producer.start()
    published = asyncio.Event()
    prober = asyncio.create_task(_probe(settings, waiting, found, published))
    try:
        await _publish(producer, rate, events, every, waiting)
        published.set()
        async with asyncio.timeout(_LATEST):
            await prober
    finally:
        prober.cancel()
        await producer.stop()
    return found


async def _publish(producer: AIOKafkaProducer, rate: int, events: int, every: int, waiting: dict[int, float]) -> None:
    records = [_record(number + 1) for number in range(events)]  # first: creating takes as long as sending
    began, warm_up = time.perf_counter(), min(_WARM_UP, rate)
    for number, record in enumerate(records):
        await asyncio.sleep(max(0.0, began + number / rate - time.perf_counter()))
        if number >= warm_up and number % every == 0:
            waiting[number + 1] = time.perf_counter()
        await producer.send(record.topic, key=record.key, value=record.value, headers=list(record.headers))


def _record(user: int) -> KafkaRecord:
    return ProgressLeveledUp(
        user_id=user, specialization="PLAYER", to_level=1, id=f"p{user}", source="/bench", time=datetime.now(UTC)
    ).to_kafka()


async def _probe(settings: Settings, waiting: dict[int, float], found: list[float], published: asyncio.Event) -> None:
    connection = await connect(settings)
    try:
        while waiting or not published.is_set():
            if waiting:
                rows = await connection.fetch(_FOUND, list(waiting))
                now = time.perf_counter()
                found += [(now - waiting.pop(row["user_id"])) * 1000 for row in rows]
            await asyncio.sleep(_POLL_SECONDS)
    finally:
        await connection.close()
