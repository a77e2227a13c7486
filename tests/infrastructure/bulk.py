"""Filling a topic quickly: records in whole batches, each put together before it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer

_BATCH_BYTES = 900_000
"""Below Kafka's own limit of 1 MiB for a batch."""


class Raw(Protocol):
    """What is sent of a record (aiokafka's ConsumerRecord has it)."""

    key: Any
    value: Any
    timestamp: int
    headers: Sequence[tuple[str, bytes]]


async def fill(bootstrap_servers: str, slots: Mapping[tuple[str, int], Iterable[Raw]]) -> None:
    """Send the records of each (topic, partition) in their order, and wait until the broker has them all.

    Raises:
        aiokafka.errors.KafkaError: a batch was refused.
    """
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, acks="all", max_batch_size=_BATCH_BYTES)
    try:
        await producer.start()
        await asyncio.gather(*(_fill(producer, *slot, records) for slot, records in slots.items()))
    finally:
        await producer.stop()


async def _fill(producer: AIOKafkaProducer, topic: str, partition: int, records: Iterable[Raw]) -> None:
    sent, batch = [], producer.create_batch()
    for record in records:
        if _append(batch, record) is None:  # full
            sent.append(await producer.send_batch(batch, topic, partition=partition))
            batch = producer.create_batch()
            _append(batch, record)
    if batch.record_count():
        sent.append(await producer.send_batch(batch, topic, partition=partition))
    await asyncio.gather(*sent)


def _append(batch: Any, record: Raw) -> Any:
    return batch.append(key=record.key, value=record.value, timestamp=record.timestamp, headers=list(record.headers))
