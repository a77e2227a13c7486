"""FastStream's subscribers: a poll's raw records → decode → apply → commit → report."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import structlog
from faststream import AckPolicy
from faststream.kafka import KafkaBroker, KafkaMessage

from service.apply.batch import Batch
from service.apply.positions import DatabaseWentBack, Evicted, TopicRecreated, after
from service.apply.retry import GivenUp, until_applied
from service.health import Health
from service.kafka.consumer import LevelConsumer
from service.settings import Settings

log = structlog.get_logger(__name__)

FETCH_BYTES = 512 * 1024
"""Bytes fetched ahead for one partition: bounds memory whatever the backlog."""


class Work(Protocol):
    """What is done with the batches of one topic (`service.apply.events`, `service.reconcile.work`)."""

    def decode(self, records: Any) -> Any:
        """Read the records of a batch; pure, and called again with every attempt."""

    async def apply(self, batch: Batch, decoded: Any) -> Any:
        """Give the batch its effect, once; called again for as long as faults last.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows are not where this consumer left them.
        """

    def report(self, batch: Batch, decoded: Any, applied: Any, seconds: float) -> None:
        """Count and log what is committed."""


def subscribe(  # noqa: PLR0913 - what one subscriber is made of
    broker: KafkaBroker, topic: str, work: Work, settings: Settings, health: Health, *, group_id: str | None = None
) -> Any:
    """One consumer of `topic` in the group. Several of them share its partitions, each with its own transaction."""
    subscriber = broker.subscriber(
        topic,
        batch=True,
        max_records=settings.batch_max_records,
        batch_timeout_ms=max(1, int(settings.batch_max_wait.total_seconds() * 1000)),
        group_id=group_id or settings.kafka_group_id,
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
    subscriber(_handler(lambda: _consumer(subscriber), work, health))
    return subscriber


def _handler(consumer_of: Callable[[], LevelConsumer], work: Work, health: Health) -> Callable[[Any], Awaitable[None]]:
    async def handle(_records: Any) -> None:
        consumer, began = consumer_of(), time.perf_counter()
        batch = consumer.batch
        done = await _apply(consumer, work, batch, health)
        if done is not None:
            await consumer.finish(after(batch.expected, batch.positions))
            work.report(batch, *done, time.perf_counter() - began)

    return handle


async def _apply(consumer: LevelConsumer, work: Work, batch: Batch, health: Health) -> tuple[Any, Any] | None:
    """Decode and apply the batch for as long as faults last; None where it is somebody else's, or starts again."""

    async def attempt() -> tuple[Any, Any]:
        decoded = work.decode(batch.records)  # inside: also a bug in decoding is retried, and seen in /readyz
        return decoded, await work.apply(batch, decoded)

    try:
        return await until_applied(attempt, consumer, health)
    except (Evicted, GivenUp) as reason:
        log.warning("batch given up: its partitions have another owner", reason=str(reason))
        consumer.abandon(wait_for_rebalance=isinstance(reason, Evicted))
    except DatabaseWentBack as reason:
        log.warning("the database has gone back in time: reading again from its position", reason=str(reason))
        consumer.abandon(wait_for_rebalance=False)
    except TopicRecreated as reason:
        log.warning("batch given up: its topic was deleted and created again", reason=str(reason))
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
