"""The role `apply`: two consumers for each topic in one process, so that one works while another waits."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError
from faststream.kafka import KafkaBroker
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import (
    LICENSE_ADVANCED_TOPIC,
    LICENSE_ADVANCED_TYPE,
    PROGRESS_LEVELED_UP_TOPIC,
    PROGRESS_LEVELED_UP_TYPE,
    ReconcileRequested,
)
from service.apply.batch import Applied, Applier
from service.apply.call import Target, license_target, progress_target
from service.apply.subscriber import subscribe
from service.core.outcomes import DeadLetter, LevelEvent, Outcome
from service.outbox.put import put
from service.settings import Settings
from service.stream.background import cause_of, retry, stop
from service.stream.broker import GRACEFUL_TIMEOUT, make_broker
from service.stream.connection import EMBEDDED_CLUSTER_PREFIX
from service.stream.positions import Batch, DatabasePositionStore
from service.telemetry import metrics
from service.telemetry.health import Health

log = structlog.get_logger(__name__)
_TYPES = {PROGRESS_LEVELED_UP_TOPIC: PROGRESS_LEVELED_UP_TYPE, LICENSE_ADVANCED_TOPIC: LICENSE_ADVANCED_TYPE}
_FIRST_LETTERS = 3
"""Maximum number of dead letters that the log line of a batch describes. The table contains all of them."""
_WRITTEN = (Outcome.APPLIED, Outcome.CREATED)


def report_batch(done: Batch, applied: Applied, seconds: float) -> None:
    """Count and log a batch after its commit. A batch with only held pairs has nothing to report."""
    if applied.left and not applied.outcomes:
        return
    topic = done.records[0].topic
    kind, counts = _TYPES[topic], Counter(applied.outcomes.values())
    for outcome, count in counts.items():
        metrics.EVENTS.labels(kind, outcome.value).inc(count)
    metrics.BATCH_SECONDS.labels(kind).observe(seconds)
    metrics.BATCH_RECORDS.labels(kind).observe(len(applied.outcomes))
    _observe_delays(kind, applied)
    if applied.letters:
        first = [_about(done, letter) for letter in applied.letters[:_FIRST_LETTERS]]
        log.warning("dead letters", topic=topic, count=len(applied.letters), first=first)
    named = {outcome.value: count for outcome, count in counts.items()}
    log.info("batch applied", topic=topic, records=len(applied.outcomes), seconds=round(seconds, 4), **named)


def _about(done: Batch, letter: DeadLetter) -> dict[str, object]:
    record = done.records[letter.index]
    at = {"partition": record.partition, "offset": record.offset}
    return at | {"reason": letter.reason.value, "detail": letter.detail[:500]}


def _observe_delays(kind: str, applied: Applied) -> None:
    now, outcomes = datetime.now(UTC).timestamp(), applied.outcomes
    written = (
        item for item in applied.decoded if isinstance(item, LevelEvent) and outcomes.get(item.index) in _WRITTEN
    )
    metrics.EVENT_DELAY.observe_all(kind, (max(0.0, now - event.occurred_us / 1_000_000) for event in written))


_NAMESPACE = uuid.UUID("6f0c2b0e-3a7e-4f55-9a0e-8f2f5b0d7c11")


async def request_reconcile(conn: AsyncConnection, partition: TopicPartition, resumed_at: int) -> None:
    """Put a ReconcileRequested (`highest`, dry run) into the outbox. The same loss gives the request the same id.

    The caller stores `resumed_at` in the position row in the same transaction. The lost records are those between the
    old position and the new one, so no loss is found twice.
    """
    name = f"{partition.topic}-{partition.partition}-{resumed_at}"
    request_id = str(uuid.uuid5(_NAMESPACE, name))
    await put(conn, [ReconcileRequested(direction="highest", requested_by=f"records lost in {name}", id=request_id)])


CONSUMERS_A_TOPIC = 2
CLEANUP_SECONDS = 1.0
"""Maximum seconds to clean up a consumer that did not start, before the next attempt."""
LONGEST_JOIN = 10.0
"""Maximum seconds that consumers which have joined the group wait for the others before they read."""
TURN_SECONDS = 30.0
"""Maximum seconds that the held records of a batch wait for locks before it is another batch's turn."""


@dataclass(frozen=True, slots=True)
class EventWork:
    """How the batches of one topic of level events are applied and reported (`service.apply.subscriber.TopicWork`)."""

    apply: Callable[[Batch], Awaitable[Applied]]
    apply_rest: Callable[[], Callable[[Batch], Awaitable[Applied]]]
    report: Callable[[Batch, Applied, float], None] = report_batch


@contextlib.asynccontextmanager
async def apply_role(
    engine: AsyncEngine, settings: Settings, health: Health, cluster_id: str
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Run the appliers, and yield a function that returns their consumers, for the watchdog."""
    store = DatabasePositionStore(engine, cluster_id, request_reconcile)
    may_read = asyncio.Event()
    broker = make_broker(settings, store, may_read)
    targets = {
        PROGRESS_LEVELED_UP_TOPIC: license_target(settings.license_defaults),
        LICENSE_ADVANCED_TOPIC: progress_target(settings.progress_defaults),
    }
    turn = asyncio.Semaphore(1)

    def work(target: Target) -> EventWork:
        applier = Applier(engine, target, settings.apply_since, leaves_held=True)
        return EventWork(applier.apply, lambda: _one_at_a_time(Applier(engine, target, settings.apply_since), turn))

    subscribers = [
        subscribe(broker, topic, work(target), settings, health)
        for topic, target in targets.items()
        for _ in range(CONSUMERS_A_TOPIC)
    ]
    one_first = await one_joins_first(store)
    async with running_broker(broker, subscribers, health, may_read, one_first=one_first) as consumers:
        yield consumers


def _one_at_a_time(applier: Applier, turn: asyncio.Semaphore) -> Callable[[Batch], Awaitable[Applied]]:
    """Return a function that applies held records, one batch of a process at a time.

    Each batch that waits for a lock uses a connection.
    """

    async def apply(batch: Batch) -> Applied:
        async with turn, asyncio.timeout(TURN_SECONDS):
            return await applier.apply(batch)

    return apply


async def one_joins_first(store: DatabasePositionStore) -> bool:
    """Return whether one member of the process joins before the others: in a group that is new to Apache Kafka.

    The embedded broker answers the first join after five seconds, and one that comes later after six more.
    """
    return not store.cluster_id.startswith(EMBEDDED_CLUSTER_PREFIX) and await store.is_new()


@contextlib.asynccontextmanager
async def running_broker(
    broker: KafkaBroker,
    subscribers: Sequence[Any],
    health: Health,
    may_read: asyncio.Event,
    *,
    one_first: bool = False,
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Start a broker's subscribers, yield a function that returns their consumers, and drain them at the end.

    All subscribers join the group at once. Started one by one, each would cause a rebalance. With `one_first`, one
    subscriber joins alone before the others, because Apache Kafka waits three seconds for more members of a new group,
    and three more if one comes in that time.

    `may_read` is set when all have tried to start, so that no rebalance interrupts the first batches. A start that
    takes longer than LONGEST_JOIN does not delay the consumers that have joined.
    """
    await broker.connect()
    tried = [asyncio.Event() for _ in subscribers]
    starting: list[asyncio.Task[None]] = []
    try:
        for subscriber, event in zip(subscribers, tried, strict=True):
            starting.append(asyncio.create_task(_start(subscriber, health, event)))
            if one_first and len(starting) == 1:
                await event.wait()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LONGEST_JOIN):
                await _all_set(tried)
        may_read.set()
        await _all_set(tried)
        yield lambda: [subscriber.consumer for subscriber in subscribers if subscriber.consumer is not None]
    finally:
        for task in starting:
            await stop(task)
        await _stop(broker, subscribers)


async def _all_set(events: Sequence[asyncio.Event]) -> None:
    for event in events:
        await event.wait()


async def _start(subscriber: Any, health: Health, tried: asyncio.Event) -> None:
    """Start one subscriber. Retry while Kafka does not answer or refuses its topic. The others do not wait for it."""

    async def attempt() -> None:
        try:
            await subscriber.start()
        except (KafkaError, OSError):
            with contextlib.suppress(KafkaError, OSError, TimeoutError):
                await asyncio.wait_for(subscriber.stop(), CLEANUP_SECONDS)
            await _end(subscriber)
            raise

    def report(error: Exception, _attempt: int) -> None:
        health.report("consumers", tried, f"a consumer does not start: {type(error).__name__}: {error}")
        metrics.RETRIES.labels(cause_of(error)[0]).inc()
        log.warning("a consumer does not start and is retried", error=f"{type(error).__name__}: {error}")
        tried.set()

    await retry(attempt, lambda error: isinstance(error, KafkaError | OSError), report)
    health.clear("consumers", tried)
    tried.set()


async def _stop(broker: KafkaBroker, subscribers: Sequence[Any]) -> None:
    """Finish and commit the current batch, and leave the group. The time is bounded: aiokafka's stop can hang."""
    try:
        async with asyncio.timeout(GRACEFUL_TIMEOUT + 1):
            await broker.stop()
    except TimeoutError:
        log.warning("the consumers did not stop in time")
    finally:
        for subscriber in subscribers:
            await _end(subscriber)


async def _end(subscriber: Any) -> None:
    """Close the connections of a consumer that has not closed them itself."""
    if subscriber.consumer is not None:
        await subscriber.consumer.end()
