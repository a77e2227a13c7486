"""One batch of the outbox on its way to Kafka: what has arrived, and what has not and why."""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, KafkaTimeoutError

from service.outbox.rows import Row, waves

DELIVERY_TIMEOUT = 30.0
"""Seconds for one wave."""
TOPIC_TIMEOUT = 5.0
"""Seconds to find a topic that was not used before."""


@dataclass(slots=True)
class Delivery:
    """What became of a batch. Rows that are neither here nor there were not sent."""

    confirmed: list[int] = field(default_factory=list)
    """Ids of rows that are on every in-sync replica."""
    failed: dict[Row, KafkaError] = field(default_factory=dict)
    """Rows that Kafka refused or did not confirm in time: it may have those all the same."""
    topics: dict[str, str] = field(default_factory=dict)
    """Topics that cannot be found, with Kafka's words; nothing was sent to them."""


async def publish(producer: AIOKafkaProducer, rows: Sequence[Row]) -> Delivery:
    """Send rows wave by wave, as far as everything arrives. A failure is in the result, not raised."""
    delivery = Delivery()
    delivery.topics = await _missing_topics(producer, {row.topic for row in rows})
    for wave in waves(row for row in rows if row.topic not in delivery.topics):
        await _send(producer, wave, delivery)
        if delivery.failed:
            break
    return delivery


async def _missing_topics(producer: AIOKafkaProducer, topics: Iterable[str]) -> dict[str, str]:
    """Ask for topics first: a send to one that is not there would wait, and the others behind it."""
    missing: dict[str, str] = {}
    for topic in sorted(topics):
        try:
            await asyncio.wait_for(producer.partitions_for(topic), TOPIC_TIMEOUT)
        except (KafkaError, TimeoutError) as error:
            missing[topic] = str(error) or "Kafka does not know it"
    return missing


async def _send(producer: AIOKafkaProducer, wave: Sequence[Row], delivery: Delivery) -> None:
    sent: dict[Row, Future[Any]] = {}
    try:
        async with asyncio.timeout(DELIVERY_TIMEOUT):
            for row in wave:
                await _send_one(producer, row, sent, delivery)
            if sent:
                await asyncio.wait(sent.values())
    except TimeoutError:
        for row in wave:
            if row not in sent:
                delivery.failed.setdefault(row, _no_answer())
    for row, future in sent.items():
        _sort(row, future, delivery)


async def _send_one(producer: AIOKafkaProducer, row: Row, sent: dict[Row, Future[Any]], delivery: Delivery) -> None:
    try:
        sent[row] = await producer.send(row.topic, key=row.key, value=row.value, headers=row.headers)
    except KafkaError as error:
        delivery.failed[row] = error


def _sort(row: Row, future: Future[Any], delivery: Delivery) -> None:
    if not future.done():
        future.cancel()  # nobody will ask for its answer; the record itself may still arrive
    if future.cancelled():
        delivery.failed[row] = _no_answer()
    elif (error := future.exception()) is None:
        delivery.confirmed.append(row.id)
    else:
        delivery.failed[row] = error if isinstance(error, KafkaError) else KafkaError(repr(error))


def _no_answer() -> KafkaError:
    return KafkaTimeoutError(f"no answer within {DELIVERY_TIMEOUT:.0f} s")
