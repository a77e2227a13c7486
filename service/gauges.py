"""The gauges that are read from the database and from Kafka: the same in every process, so dashboards take the max."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from events import Reason
from service import metrics
from service.database.positions import applied_positions
from service.database.tables import dead_letters, outbox, reconcile_runs
from service.kafka.lag import lag


async def set_gauges(conn: AsyncConnection, ends: Mapping[TopicPartition, int], cluster_id: str) -> None:
    """Set lag, open dead letters, pending events and drift."""
    for partition, records in lag(ends, await applied_positions(conn, cluster_id)).items():
        metrics.CONSUMER_LAG.labels(partition.topic, str(partition.partition)).set(records)
    await _set_dead_letters(conn)
    await _set_reconcile(conn)
    metrics.OUTBOX_PENDING.set((await conn.execute(select(func.count()).select_from(outbox))).scalar_one())


async def _set_dead_letters(conn: AsyncConnection) -> None:
    letters = dead_letters.c
    query = select(letters.reason, func.count().label("open")).where(letters.resolved_at.is_(None))
    counts = {row.reason: row.open for row in await conn.execute(query.group_by(letters.reason))}
    for reason in Reason:
        metrics.DEAD_LETTERS.labels(reason.value).set(counts.get(reason.value, 0))


async def _set_reconcile(conn: AsyncConnection) -> None:
    """What the last complete scan of everything left in disagreement, and when it ended."""
    runs = reconcile_runs.c
    complete = (runs.status == "completed") & runs.specialization.is_(None) & runs.user_id.is_(None)
    last = select(runs.finished_at, runs.counts).where(complete).order_by(runs.finished_at.desc()).limit(1)
    row = (await conn.execute(last)).one_or_none()
    metrics.DRIFT_PAIRS.clear()
    if row is not None:
        metrics.RECONCILE_LAST_SUCCESS.set(row.finished_at.timestamp())
        for kind, specialization, number in row.counts.get("left_by", ()):
            metrics.DRIFT_PAIRS.labels(kind, specialization).set(number)
