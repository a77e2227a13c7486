"""The watchdog: a consumer that stands still while its lag grows ends the process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service import metrics
from service.database.faults import Kind, read_fault
from service.gauges import set_gauges
from service.health import Health
from service.kafka.diagnosis import diagnose
from service.kafka.lag import EndOffsets
from service.sampler import Sampler
from service.settings import Settings

log = structlog.get_logger(__name__)
LOOK_EVERY = 5.0
STALL_SECONDS = 120.0
"""A consumer with lag may stand still this long, without a retry in progress: a statement may take 90 s (`engine`)."""
BEGIN_SECONDS = 120.0
"""And this long may partitions that it owns wait for their beginning: above a rebalance and what comes after it."""
NOT_BEGUN = -1


class Stalled(Exception):  # noqa: N818 - a state, not an error
    """A consumer stands still: the process has to be started again."""


@dataclass(slots=True)
class Watchdog:
    """Remembers since when each partition has stood where it stands."""

    stall_seconds: float = STALL_SECONDS
    _since: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)

    def stalled(
        self, ends: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int], now: float
    ) -> dict[TopicPartition, int]:
        """Partitions with lag whose position has not moved for `stall_seconds`, and where they stand.

        `positions` are those of consumers that ought to move: none of a consumer that is retrying.
        """
        # The clock of a partition begins when lag is first seen: an idle hour before it is no stall.
        lagging = {tp: at for tp, at in positions.items() if ends.get(tp, 0) > max(at, 0)}
        self._since = {
            tp: self._since[tp] if self._since.get(tp, (None,))[0] == at else (at, now) for tp, at in lagging.items()
        }
        return {tp: at for tp, (at, since) in self._since.items() if now - since >= self._bound(at)}

    def forget(self) -> None:
        """Restart every clock: no consumer could move while Kafka or PostgreSQL was away."""
        self._since = {}

    def _bound(self, at: int) -> float:
        return max(self.stall_seconds, BEGIN_SECONDS) if at == NOT_BEGUN else self.stall_seconds


async def watch(  # noqa: PLR0913, PLR0917 - what it looks at, and what it tells
    engine: AsyncEngine,
    settings: Settings,
    health: Health,
    consumers: Callable[[], list[Any]],
    cluster_id: str,
    sampler: Sampler,
) -> None:
    """Look every few seconds, for as long as the service runs. `sampler` has counted since before the first batch.

    Raises:
        Stalled: a consumer stands still.
    """
    watchdog = Watchdog(STALL_SECONDS)
    metrics.RECONCILE_PERIOD.set(settings.reconcile_every.total_seconds())
    while True:
        try:
            async with (
                EndOffsets(settings) as kafka,
                EndOffsets(settings, isolation_level="read_committed") as readable,
            ):
                while True:
                    cluster = await kafka.read_cluster()
                    ends, topic_ids = await kafka.read_of(cluster), await kafka.read_topic_ids(cluster)
                    health.clear("kafka", watchdog)
                    gauges = partial(set_gauges, ends=ends, cluster_id=cluster_id, topic_ids=topic_ids)
                    await _use_database(_gauges_and_sample(engine, gauges, sampler), health, watchdog)
                    # A publisher's open transaction holds a consumer back: that is no stall.
                    _check_stalled(watchdog, await readable.read(), consumers(), health)
                    await asyncio.sleep(LOOK_EVERY)
        except (KafkaError, OSError) as error:
            watchdog.forget()
            metrics.RETRIES.labels("kafka_unavailable").inc()
            health.report("kafka", watchdog, f"Kafka does not answer: {await _cause(settings, error)}")
            await asyncio.sleep(LOOK_EVERY)


async def _cause(settings: Settings, error: Exception) -> str:
    """Look for the cause of a lost connection, which the client does not name; other errors say it themselves."""
    lost = isinstance(error, KafkaConnectionError | OSError)
    return (await diagnose(settings) if lost else "") or str(error)


def _check_stalled(
    watchdog: Watchdog, ends: Mapping[TopicPartition, int], consumers: Iterable[Any], health: Health
) -> None:
    positions: dict[TopicPartition, int] = {}
    for consumer in consumers:
        _report_polls(consumer, health)
        if not consumer.retrying:
            positions |= dict.fromkeys(consumer.not_begun(), NOT_BEGUN) | consumer.owned_positions()
    if stalled := watchdog.stalled(ends, positions, time.monotonic()):
        named = ", ".join(_where(tp, at, ends[tp]) for tp, at in sorted(stalled.items()))
        health.stalled = f"a consumer stands still with lag and no retry in progress: {named}"
        raise Stalled(health.stalled)


def _where(tp: TopicPartition, at: int, end: int) -> str:
    reached = f"at {at} of {end}" if at != NOT_BEGUN else f"not begun, {end} there"
    return f"{tp.topic}-{tp.partition} {reached}"


def _report_polls(consumer: Any, health: Health) -> None:
    """What a consumer cannot read it tries again for ever: somebody has to be told."""
    if consumer.problem:
        health.report("consumers", consumer, consumer.problem)
    else:
        health.clear("consumers", consumer)


async def _gauges_and_sample(
    engine: AsyncEngine, gauges: Callable[[AsyncConnection], Awaitable[None]], sampler: Sampler
) -> None:
    """Set the gauges that are the same in every process, and store a sample where a minute has ended."""
    async with engine.connect() as conn:
        await gauges(conn)
    await sampler.sample(engine)


async def _use_database(work: Awaitable[None], health: Health, watchdog: Watchdog) -> None:
    """Await work on the database; report its fault."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - a gauge never ends the service; the appliers report what they meet
        fault = read_fault(error)
        metrics.RETRIES.labels((fault.kind if fault.kind is not Kind.RECORD else Kind.INSTALLATION).value).inc()
        health.report("postgresql", watchdog, fault.message)
        watchdog.forget()
    else:
        health.clear("postgresql", watchdog)
