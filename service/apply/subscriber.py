"""FastStream's subscribers: a poll's raw records → decode → apply → commit → count."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from service.apply import report
from service.apply.batch import Applied, Applier, Batch
from service.apply.decode import decode
from service.apply.outcomes import DeadLetter, LevelEvent
from service.apply.positions import DatabaseWentBack, Evicted, after
from service.apply.retry import GivenUp, until_applied
from service.health import Health
from service.kafka.consumer import LevelConsumer
from service.settings import Settings

log = structlog.get_logger(__name__)

FETCH_BYTES = 1024 * 1024
"""Bytes fetched ahead for one partition: bounds memory whatever the backlog."""


def subscribe(broker: KafkaBroker, topic: str, applier: Applier, settings: Settings, health: Health) -> Any:
    """One consumer of `topic` in the group. Several of them share its partitions, each with its own transaction."""
    subscriber = broker.subscriber(
        topic,
        batch=True,
        max_records=settings.batch_max_records,
        batch_timeout_ms=max(1, int(settings.batch_max_wait.total_seconds() * 1000)),
        group_id=settings.kafka_group_id,
        ack_policy=AckPolicy.MANUAL,
        parser=_keep_raw,
        decoder=_raw_records,
        no_reply=True,
        isolation_level="read_committed",
        auto_offset_reset="none",  # `starting_point` decides, with the database
        fetch_max_bytes=settings.batch_max_bytes,
        max_partition_fetch_bytes=FETCH_BYTES,
        session_timeout_ms=10_000,
        heartbeat_interval_ms=1_000,  # how soon a member learns of a rebalance
        rebalance_timeout_ms=30_000,  # must exceed DRAIN_TIMEOUT
        max_poll_interval_ms=86_400_000,  # an outage may last; the watchdog sees a consumer that stands still
    )
    subscriber(_handler(lambda: _consumer(subscriber), applier, topic, health))
    return subscriber


def _handler(
    consumer_of: Callable[[], LevelConsumer], applier: Applier, topic: str, health: Health
) -> Callable[[Any], Awaitable[None]]:
    async def handle(_records: Any) -> None:
        consumer, began = consumer_of(), time.perf_counter()
        batch = consumer.batch
        decoded = decode(batch.records)
        applied = await _apply(consumer, applier, batch, decoded, health)
        if applied is not None:
            await consumer.finish(after(batch.expected, batch.positions))
            report.batch(topic, batch, decoded, applied, time.perf_counter() - began)

    return handle


async def _apply(
    consumer: LevelConsumer, applier: Applier, batch: Batch, decoded: list[LevelEvent | DeadLetter], health: Health
) -> Applied | None:
    """Apply the batch for as long as faults last; None where it is somebody else's, or starts again."""
    try:
        return await until_applied(lambda: applier.apply(batch, decoded), consumer, health)
    except (Evicted, GivenUp) as reason:
        log.warning("batch given up: its partitions have another owner", reason=str(reason))
        consumer.abandon(wait_for_rebalance=isinstance(reason, Evicted))
    except DatabaseWentBack as reason:
        log.warning("the database has gone back in time: reading again from its position", reason=str(reason))
        consumer.abandon(wait_for_rebalance=False)
    return None


def _consumer(subscriber: Any) -> LevelConsumer:
    consumer: LevelConsumer = subscriber.consumer
    return consumer


async def _keep_raw(records: tuple[Any, ...]) -> KafkaMessage:
    """Wrap the raw records: FastStream's own parser fails on a null header and costs most of a batch's time."""
    return KafkaMessage(body=b"", raw_message=records, consumer=_NO_CONSUMER)


async def _raw_records(message: KafkaMessage) -> Any:
    return message.raw_message


class _NoConsumer:
    """What FastStream may acknowledge with: nothing. Offsets are committed by `LevelConsumer.finish` alone."""

    async def commit(self) -> None:
        """Never called with AckPolicy.MANUAL."""

    def seek(self, partition: Any, offset: int) -> None:
        """Never called with AckPolicy.MANUAL."""


_NO_CONSUMER = _NoConsumer()
