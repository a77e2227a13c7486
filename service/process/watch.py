"""The watchdog, the minute samples, and the gauges that are read from PostgreSQL and Kafka.

All processes share one row a minute. Each process adds the events that it counted since its last sample. Of a gauge the
row stores the greatest value: every process measures the same lag, drift and dead letters, so the greatest value is the
peak of that minute, in whatever order the processes write.

While PostgreSQL cannot be reached, no sample is stored, and the next sample includes what is missing. That is little,
because no batch commits without PostgreSQL. A process that is killed loses the counts of less than a minute.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, KafkaError
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Reason
from service.faults import Kind, read_fault
from service.settings import Settings
from service.store.schema import RELEASE, schema_state_of
from service.store.tables import applied_positions, dead_letters
from service.stream.diagnosis import diagnose
from service.stream.lag import EndOffsets, lag
from service.telemetry import metrics
from service.telemetry.health import Health

_ADD_UP = """
    (SELECT coalesce(jsonb_object_agg(added.name, added.total), '{{}}')
       FROM (SELECT one.name, sum(one.number::bigint) AS total
               FROM (SELECT * FROM jsonb_each_text(stored.{column})
                     UNION ALL SELECT * FROM jsonb_each_text(excluded.{column})) AS one (name, number)
              GROUP BY one.name) AS added)
"""
_STORE = text(f"""
    INSERT INTO levelsync.minute_samples AS stored (minute, events, delays, lag, drift, dead_letters)
    VALUES (date_trunc('minute', clock_timestamp() - interval '30 seconds'),
            CAST(:events AS jsonb), CAST(:delays AS jsonb), :lag, :drift, :dead_letters)
        ON CONFLICT (minute) DO UPDATE
       SET events = {_ADD_UP.format(column="events")}, delays = {_ADD_UP.format(column="delays")},
           lag = greatest(stored.lag, excluded.lag), drift = greatest(stored.drift, excluded.drift),
           dead_letters = greatest(stored.dead_letters, excluded.dead_letters)
""")
"""A sample is stored seconds after a minute has ended. All processes use PostgreSQL's clock to find that minute."""


class Sampler:
    """The sampler of one process, which stores its counts once a minute."""

    def __init__(self) -> None:
        self._events, self._delays = _events(), _delays()
        self._minute = _minute()

    async def sample(self, engine: AsyncEngine) -> None:
        """Store a sample if a minute has ended since the last one.

        Raises:
            Exception: an error of the database. Nothing is stored, and the next sample includes what is missing.
        """
        minute = _minute()
        if minute == self._minute:
            return
        events, delays = _events(), _delays()
        values = {
            "events": json.dumps(events - self._events),
            "delays": json.dumps(delays - self._delays),
            "lag": _sum(metrics.CONSUMER_LAG),
            "drift": _sum(metrics.DRIFT_PAIRS) or 0,
            "dead_letters": _sum(metrics.DEAD_LETTERS),
        }
        async with engine.begin() as conn:
            await conn.execute(_STORE, values)
        self._events, self._delays, self._minute = events, delays, minute


def _minute() -> int:
    return int(time.time() // 60)


def _events() -> Counter[str]:
    found = metrics.samples(metrics.EVENTS, "_total")
    return Counter({f"{labels['type']} {labels['outcome']}": int(value) for labels, value in found})


def _delays() -> Counter[str]:
    """Count the events of each bucket alone. Prometheus' buckets are cumulative."""
    found: Counter[str] = Counter()
    for kind, buckets in groupby(metrics.samples(metrics.EVENT_DELAY, "_bucket"), lambda one: one[0]["type"]):
        before = 0
        for labels, value in buckets:
            found[f"{kind} {labels['le']}"] = int(value) - before
            before = int(value)
    return found


def _sum(gauge: object) -> int | None:
    """Add up a gauge's values; return None where it has no values yet."""
    found = [value for _, value in metrics.samples(gauge)]
    return int(sum(found)) if found else None


_OUTBOX = text("""
    SELECT count(*) AS pending, coalesce(extract(epoch FROM clock_timestamp() - min(created_at)), 0) AS oldest
      FROM levelsync.outbox
""")
_DRIFT_SCANS = text("""
    WITH scans AS (
        SELECT finished_at, jsonb_path_exists(
                   counts, '$.left_by[*] ? (@[0] == "mismatched" || @[0] starts with "missing_")') AS drift
          FROM levelsync.complete_scans)
    SELECT count(*) FROM scans
     WHERE drift AND finished_at > coalesce((SELECT max(finished_at) FROM scans WHERE NOT drift), '-infinity')
""")
_LAST_SCAN = text("SELECT finished_at, counts FROM levelsync.complete_scans ORDER BY finished_at DESC LIMIT 1")


async def set_gauges(
    conn: AsyncConnection, ends: Mapping[TopicPartition, int], cluster_id: str, topic_ids: Mapping[str, str]
) -> None:
    """Set the gauges of lag, of the schema's revision, of open dead letters, of drift and of the outbox."""
    for partition, records in lag(ends, await applied_positions(conn, cluster_id, topic_ids)).items():
        at = (partition.topic, str(partition.partition))
        metrics.CONSUMER_LAG.labels(*at).set(records)
        metrics.RECORDS_LOST.labels(*at)  # create the series at 0
    metrics.set_build_info(RELEASE, (await schema_state_of(conn)).revision or "")
    await _set_dead_letters(conn)
    await _set_reconcile(conn)
    await _set_outbox(conn)


async def _set_outbox(conn: AsyncConnection) -> None:
    row = (await conn.execute(_OUTBOX)).one()
    metrics.OUTBOX_PENDING.set(row.pending)
    metrics.OUTBOX_OLDEST.set(float(row.oldest))


async def _set_dead_letters(conn: AsyncConnection) -> None:
    letters = dead_letters.c
    query = select(letters.reason, func.count().label("open")).where(letters.resolved_at.is_(None))
    counts = {row.reason: row.open for row in await conn.execute(query.group_by(letters.reason))}
    for reason in Reason:
        metrics.DEAD_LETTERS.labels(reason.value).set(counts.get(reason.value, 0))


async def _set_reconcile(conn: AsyncConnection) -> None:
    """Set the gauges of drift: what the last complete scan left in disagreement, and when it ended."""
    row = (await conn.execute(_LAST_SCAN)).one_or_none()
    metrics.DRIFT_SCANS.set((await conn.execute(_DRIFT_SCANS)).scalar_one())
    metrics.DRIFT_PAIRS.clear()
    if row is not None:
        metrics.RECONCILE_LAST_SUCCESS.set(row.finished_at.timestamp())
        for kind, specialization, number in row.counts.get("left_by", ()):
            metrics.DRIFT_PAIRS.labels(kind, specialization).set(number)


log = structlog.get_logger(__name__)
LOOK_EVERY = 5.0
STALL_SECONDS = 120.0
"""Seconds without a move and without a retry after which a consumer with lag is stalled. Must exceed the 90 s that a
statement may take (`engine`)."""
BEGIN_SECONDS = 120.0
"""How long a partition may wait for its first read after a rebalance. Must exceed the time that a rebalance takes."""
NOT_STARTED = -1


class Stalled(Exception):  # noqa: N818 - a state, not an error
    """A consumer is stalled, so the process must be restarted."""


@dataclass(slots=True)
class Watchdog:
    """Remembers how long each lagging partition has been at its current position."""

    stall_seconds: float = STALL_SECONDS
    _since: dict[TopicPartition, tuple[int, float]] = field(default_factory=dict)

    def stalled(
        self, ends: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int], now: float
    ) -> dict[TopicPartition, int]:
        """Return the partitions with lag whose position has not moved for `stall_seconds`, with their positions.

        `positions` must not contain the partitions of a consumer that is retrying.
        """
        # A partition's clock starts when lag is first seen, so that an idle hour before it does not count.
        lagging = {tp: at for tp, at in positions.items() if ends.get(tp, 0) > max(at, 0)}
        self._since = {
            tp: self._since[tp] if self._since.get(tp, (None,))[0] == at else (at, now) for tp, at in lagging.items()
        }
        return {tp: at for tp, (at, since) in self._since.items() if now - since >= self._bound(at)}

    def forget(self) -> None:
        """Restart every clock, because no consumer can move while Kafka or PostgreSQL is unreachable."""
        self._since = {}

    def _bound(self, at: int) -> float:
        return max(self.stall_seconds, BEGIN_SECONDS) if at == NOT_STARTED else self.stall_seconds


async def watch(  # noqa: PLR0913, PLR0917 - what it measures and where it reports
    engine: AsyncEngine,
    settings: Settings,
    health: Health,
    consumers: Callable[[], list[Any]],
    cluster_id: str,
    sampler: Sampler,
) -> None:
    """Set the gauges and check for stalled consumers every few seconds, for as long as the service runs.

    `sampler` was created before the first batch, so that it counts every event.

    Raises:
        Stalled: a consumer is stalled.
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
                    # A consumer cannot read past a publisher's open transaction, so the end is the last stable offset.
                    _check_stalled(watchdog, await readable.read(), consumers(), health)
                    await asyncio.sleep(LOOK_EVERY)
        except (KafkaError, OSError) as error:
            watchdog.forget()
            metrics.RETRIES.labels("kafka_unavailable").inc()
            health.report("kafka", watchdog, f"Kafka does not answer: {await _cause(settings, error)}")
            await asyncio.sleep(LOOK_EVERY)


async def _cause(settings: Settings, error: Exception) -> str:
    """Return the cause of an error. The client does not name the cause of a lost connection, so diagnose it."""
    lost = isinstance(error, KafkaConnectionError | OSError)
    return (await diagnose(settings) if lost else "") or str(error)


def _check_stalled(
    watchdog: Watchdog, ends: Mapping[TopicPartition, int], consumers: Iterable[Any], health: Health
) -> None:
    positions: dict[TopicPartition, int] = {}
    for consumer in consumers:
        _report_polls(consumer, health)
        if not consumer.retrying:
            positions |= dict.fromkeys(consumer.not_started(), NOT_STARTED) | consumer.owned_positions()
    if stalled := watchdog.stalled(ends, positions, time.monotonic()):
        named = ", ".join(_where(tp, at, ends[tp]) for tp, at in sorted(stalled.items()))
        health.stalled = f"a consumer is stalled, with lag and no retry in progress: {named}"
        raise Stalled(health.stalled)


def _where(tp: TopicPartition, at: int, end: int) -> str:
    reached = f"at {at} of {end}" if at != NOT_STARTED else f"not started, its end is {end}"
    return f"{tp.topic}-{tp.partition} {reached}"


def _report_polls(consumer: Any, health: Health) -> None:
    """Report what a consumer cannot read in `health`, because it retries without an end."""
    if consumer.problem:
        health.report("consumers", consumer, consumer.problem)
    else:
        health.clear("consumers", consumer)


async def _gauges_and_sample(
    engine: AsyncEngine, gauges: Callable[[AsyncConnection], Awaitable[None]], sampler: Sampler
) -> None:
    """Set the gauges that are the same in every process, and store a sample if a minute has ended."""
    async with engine.connect() as conn:
        await gauges(conn)
    await sampler.sample(engine)


async def _use_database(work: Awaitable[None], health: Health, watchdog: Watchdog) -> None:
    """Await work on the database and report its fault in `health`."""
    try:
        await work
    except Exception as error:  # noqa: BLE001 - a gauge never ends the service; the appliers report what they meet
        fault = read_fault(error)
        metrics.RETRIES.labels((fault.kind if fault.kind is not Kind.RECORD else Kind.INSTALLATION).value).inc()
        health.report("postgresql", watchdog, fault.message)
        watchdog.forget()
    else:
        health.clear("postgresql", watchdog)
