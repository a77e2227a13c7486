"""The gauges that are read from the database and from Kafka: the same in every process, so dashboards take the max."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import Reason
from service import metrics
from service.database.positions import applied_positions
from service.database.schema import RELEASE, stand_of
from service.database.tables import dead_letters
from service.kafka.lag import lag

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
    """Set lag, the schema's revision, open dead letters, drift and what waits in the outbox."""
    for partition, records in lag(ends, await applied_positions(conn, cluster_id, topic_ids)).items():
        at = (partition.topic, str(partition.partition))
        metrics.CONSUMER_LAG.labels(*at).set(records)
        metrics.RECORDS_LOST.labels(*at)  # a loss that is not there is a 0, not an absence
    metrics.set_build_info(RELEASE, (await stand_of(conn)).revision or "")
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
    """What the last complete scan of everything left in disagreement, and when it ended."""
    row = (await conn.execute(_LAST_SCAN)).one_or_none()
    metrics.DRIFT_SCANS.set((await conn.execute(_DRIFT_SCANS)).scalar_one())
    metrics.DRIFT_PAIRS.clear()
    if row is not None:
        metrics.RECONCILE_LAST_SUCCESS.set(row.finished_at.timestamp())
        for kind, specialization, number in row.counts.get("left_by", ()):
            metrics.DRIFT_PAIRS.labels(kind, specialization).set(number)
