"""Bring rows of the outbox to Kafka in order per key; hold back what a topic does not take."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from service.outbox.put import Row, waves

log = structlog.get_logger(__name__)
TOPIC_SECONDS = 5.0
"""How long a topic that refuses everything is left alone: it may be made, or its rights be given, meanwhile."""
_TOPIC_ERRORS = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
_ROW_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)


@dataclass(slots=True)
class HeldBack:
    """What one process leaves alone.

    A topic that cannot be written to is tried again every few seconds, for as long as that lasts; its events keep
    their order. A single event that Kafka refuses for itself (larger than 1 MB, or than the broker's own limit) will
    never be taken as things stand: it stays in the outbox, an error in the log names it, and the later events of its
    key do not wait for it. It is tried again when a process starts, and it is a person who deletes it.
    """

    rows: set[int] = field(default_factory=set)
    """Ids of events that are refused for themselves."""
    one_by_one_upto: int = 0
    """Events up to this id leave one at a time: Kafka refuses a batch for one of its records."""
    _topics: dict[str, tuple[float, str]] = field(default_factory=dict)

    def topics(self) -> dict[str, str]:
        """Topics to leave alone now, with Kafka's words."""
        now = time.monotonic()
        return {topic: words for topic, (until, words) in self._topics.items() if until > now}

    def hold_topics(self, topics: Mapping[str, str]) -> None:
        """Leave topics alone for a while."""
        for topic, words in topics.items():
            log.error("a topic takes no events, tried again", topic=topic, error=words)
            self._topics[topic] = (time.monotonic() + TOPIC_SECONDS, words)

    def sort(self, failed: Mapping[Row, KafkaError]) -> None:
        """Hold back what the failures of one batch say can not be taken; all other failures may pass."""
        self.hold_topics({row.topic: str(error) for row, error in failed.items() if isinstance(error, _TOPIC_ERRORS)})
        refused = {row: error for row, error in failed.items() if isinstance(error, _ROW_ERRORS)}
        if not refused:
            return
        last = max(row.id for row in refused)
        if last > self.one_by_one_upto:
            self.one_by_one_upto = last
        else:
            for row, error in refused.items():
                self._hold_row(row, error)

    def _hold_row(self, row: Row, error: KafkaError) -> None:
        self.rows.add(row.id)
        log.error(
            "an event is refused by Kafka and stays in the outbox",
            outbox_id=row.id,
            topic=row.topic,
            bytes=len(row.value or b""),
            error=str(error),
        )


DELIVERY_TIMEOUT = 30.0
"""Seconds for one wave."""
TOPIC_TIMEOUT = 5.0
"""Seconds to find a topic that was not used before."""


@dataclass(slots=True)
class Delivery:
    """The outcome of a batch. Rows that are neither here nor there were not sent."""

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
