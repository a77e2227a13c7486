"""Publishing records as a test wants them, good and bad."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer


class Record(NamedTuple):
    """One record. `Record(*event.to_kafka())` is an event's own; without a partition the key chooses it."""

    topic: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, bytes | None]] = ()
    timestamp_ms: int | None = None
    partition: int | None = None


async def publish(bootstrap_servers: str, records: Iterable[Sequence[Any]], **producer_options: Any) -> list[int]:
    """Send all records, in their order, and wait until the broker has them; returns their offsets.

    Raises:
        aiokafka.errors.KafkaError: a record was refused.
    """
    options: dict[str, Any] = {"acks": "all", "linger_ms": 5, "max_batch_size": 262_144, "max_request_size": 20_000_000}
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, **(options | producer_options))
    await producer.start()
    try:
        acknowledged = [await _send(producer, Record(*record)) for record in records]
        return [metadata.offset for metadata in await asyncio.gather(*acknowledged)]
    finally:
        await producer.stop()


async def _send(producer: AIOKafkaProducer, record: Record) -> Any:
    return await producer.send(
        record.topic,
        record.value,
        record.key,
        partition=record.partition,
        timestamp_ms=record.timestamp_ms,
        headers=list(record.headers),
    )
