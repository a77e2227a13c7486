"""The positions in PostgreSQL: where a partition starts, and how they move with each transaction (law 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field
from types import MappingProxyType
from typing import Any

import structlog
from aiokafka import ConsumerRecord, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.store.tables import applied_positions
from service.telemetry import metrics

Positions = Mapping[TopicPartition, int]

_MOVE_POSITIONS = text("""
    WITH locked AS MATERIALIZED (
        SELECT a.topic, a.partition, a.next_offset, a.topic_id, k.next_offset AS moved_to, k.leader_epoch
          FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                      CAST(:epochs AS int[])) AS k (topic, partition, next_offset, leader_epoch)
          JOIN levelsync.applied_offsets a ON a.topic = k.topic AND a.partition = k.partition
         ORDER BY a.topic, a.partition
           FOR NO KEY UPDATE OF a
    ), moved AS (
        UPDATE levelsync.applied_offsets AS a
           SET next_offset = greatest(a.next_offset, l.moved_to), updated_at = clock_timestamp(),
               leader_epoch = CASE WHEN l.moved_to >= a.next_offset THEN l.leader_epoch ELSE a.leader_epoch END
          FROM locked l
         WHERE a.topic = l.topic AND a.partition = l.partition AND l.moved_to IS NOT NULL
    )
    SELECT topic, partition, next_offset, topic_id FROM locked
""")
"""Lock the position rows of a batch, move them forward but never back, and return what they contained. The consumer
compares that with what it found or stored last (law 3).
"""

_READ_POSITIONS = text("""
    SELECT a.topic, a.partition, a.next_offset, a.cluster_id, a.topic_id, a.leader_epoch
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])) AS k (topic, partition)
      JOIN levelsync.applied_offsets a ON a.topic = k.topic AND a.partition = k.partition
""")
"""Read the position rows of a new assignment."""

_SET_POSITION = text("""
    INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id, topic_id, leader_epoch)
    VALUES (:topic, :partition, :next_offset, :cluster_id, :topic_id, :leader_epoch)
        ON CONFLICT (topic, partition) DO UPDATE
       SET next_offset = excluded.next_offset, cluster_id = excluded.cluster_id, topic_id = excluded.topic_id,
           leader_epoch = excluded.leader_epoch, updated_at = clock_timestamp()
""")
"""Write a position row, whatever it contained."""


class Evicted(Exception):  # noqa: N818 - an ordinary event in a consumer group, not an error
    """The position row is higher than this consumer left it, so another member owns the partition now."""


class DatabaseWentBack(Exception):  # noqa: N818 - as above
    """The position row is lower than this consumer left it, after a failover or a restore. Work restarts at the row."""


class TopicRecreated(Exception):  # noqa: N818 - as above
    """The position row belongs to another topic of the same name. One of the two was deleted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """The records of one poll, with the expected and the new positions."""

    records: Sequence[ConsumerRecord]
    expected: Positions
    positions: Positions
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic that was read, '' or absent if the broker has no topic ids. The position rows must have the
    same ids.
    """
    leader_epochs: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The epoch of the last record before each of `positions`, or -1 if it is not known. It is stored beside it."""

    def epoch_at(self, partition: TopicPartition, position: int) -> int:
        """Return the leader epoch to store with a position. It is known only for the end of the batch."""
        known = position == self.positions.get(partition)
        return self.leader_epochs.get(partition, -1) if known else -1


@dataclass(frozen=True, slots=True)
class Stored:
    """A position row: the next offset to apply, the cluster and topic that it belongs to, and the leader epoch."""

    next_offset: int
    cluster_id: str
    topic_id: str = ""
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class Start:
    """The start of a partition. `row` is the position to store, `lost` the number of records lost to retention."""

    seek: int
    row: int
    lost: int = 0
    restarts: bool = False
    epoch: int = -1
    """The leader epoch of the record before `row`, or -1 if it is not known."""


@dataclass(frozen=True, slots=True)
class Log:
    """A partition as Kafka reports it. `truncated_at` is the offset at which its log was truncated, or None."""

    cluster_id: str
    topic_id: str
    start: int
    end: int
    truncated_at: int | None = None


def starting_point(committed: int | None, stored: Stored | None, log: Log) -> Start:
    """Return where to start a partition: at the smaller of the group's commit and the position row (law 3).

    The partition restarts at its earliest record without a commit, on another cluster, on another topic of the same
    name, and if a position is beyond its end. A log that was truncated and has grown again continues where it was
    truncated. Records between the row and the start of the log were never applied and are lost to retention, also
    without a commit, because Kafka forgets a group that is away for a week. The row then moves to the start of the log.
    Otherwise the next start would find the same loss again while the group's commit is still below it.
    """
    if stored is not None and (stored.cluster_id not in {"", log.cluster_id} or differ(stored.topic_id, log.topic_id)):
        return Start(log.start, log.start, restarts=True)
    if committed is None:
        return Start(log.start, log.start, lost=max(log.start - stored.next_offset, 0) if stored else 0, restarts=True)
    row = stored.next_offset if stored else 0
    if max(committed, row) > log.end:
        return Start(log.start, log.start, restarts=True)
    if log.truncated_at is not None and log.truncated_at < row:
        seek = max(min(committed, log.truncated_at), log.start)
        return Start(seek, seek, restarts=True)
    seek = max(min(committed, row), log.start)
    epoch = stored.leader_epoch if stored is not None and row >= log.start else -1
    return Start(seek, max(row, seek), lost=max(log.start - row, 0), epoch=epoch)


async def read_positions(conn: AsyncConnection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Stored]:
    """Return the existing position rows of the partitions."""
    rows = await conn.execute(_READ_POSITIONS, _keys(sorted(partitions)))
    return {
        TopicPartition(r.topic, r.partition): Stored(r.next_offset, r.cluster_id, r.topic_id, r.leader_epoch)
        for r in rows
    }


async def set_position(  # noqa: PLR0913, PLR0917 - the columns of a row
    conn: AsyncConnection,
    partition: TopicPartition,
    offset: int,
    cluster_id: str,
    topic_id: str = "",
    leader_epoch: int = -1,
) -> None:
    """Write a position row, whatever it contained. Call it only for a partition that starts."""
    row = Stored(offset, cluster_id, topic_id, leader_epoch)
    await conn.execute(_SET_POSITION, {"topic": partition.topic, "partition": partition.partition} | asdict(row))


async def check_and_move(conn: AsyncConnection, batch: Batch) -> None:
    """Lock the rows of `expected`, check them, and move them forward to `positions`. A row never moves back.

    The rows must belong to the topics that were read, and contain what this consumer found or stored there last.

    Raises:
        TopicRecreated: A row belongs to another topic of the same name.
        Evicted: A row is higher.
        DatabaseWentBack: A row is lower, or does not exist any more.
    """
    partitions = sorted(batch.expected)
    values = _keys(partitions) | {
        "offsets": [batch.positions.get(partition) for partition in partitions],
        "epochs": [batch.leader_epochs.get(partition, -1) for partition in partitions],
    }
    rows = await conn.execute(_MOVE_POSITIONS, values)
    found = {TopicPartition(r.topic, r.partition): r for r in rows}
    for partition in partitions:
        row = found.get(partition)
        offset, topic_id = (-1, "") if row is None else (row.next_offset, row.topic_id)
        check_row(batch, partition, batch.expected[partition], offset, topic_id)


def check_row(batch: Batch, partition: TopicPartition, expected: int, offset: int, topic_id: str) -> None:
    """Compare a position row with what this consumer stored there last. `offset` is -1 if there is no row.

    Raises:
        TopicRecreated: The row belongs to another topic of the same name.
        Evicted: The row is higher.
        DatabaseWentBack: The row is lower, or does not exist any more.
    """
    name = f"{partition.topic}-{partition.partition}"
    if differ(topic_id, batch.topic_ids.get(partition.topic, "")):
        raise TopicRecreated(f"{name}: the row belongs to topic {topic_id}, not to the one that was read")
    if offset != expected:
        problem = Evicted if offset > expected else DatabaseWentBack
        raise problem(f"{name}: the row is at {offset}, but was left at {expected}")


def differ(one: str, other: str) -> bool:
    """Return whether two topic ids belong to different topics. An unknown id ('') does not differ from any."""
    return bool(one and other and one != other)


def _keys(partitions: list[TopicPartition]) -> dict[str, list[Any]]:
    return {"topics": [p.topic for p in partitions], "partitions": [p.partition for p in partitions]}


log = structlog.get_logger(__name__)
_EMPTY: Mapping[Any, Any] = MappingProxyType({})
RequestReconcile = Callable[[AsyncConnection, TopicPartition, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DatabasePositionStore:
    """The `service.stream.consumer.PositionStore` that uses the table `levelsync.applied_offsets`."""

    engine: AsyncEngine
    cluster_id: str
    request_reconcile: RequestReconcile
    """A function that is called about a loss, in the transaction that stores where the partition continues."""

    async def is_new(self) -> bool:
        """Return whether there are no positions of this cluster, so that the consumer groups are new there too.

        Return False if PostgreSQL does not answer. Only the duration of a start depends on the result.
        """
        try:
            async with self.engine.connect() as conn:
                return not await applied_positions(conn, self.cluster_id, {})
        except Exception:  # noqa: BLE001 - as above
            return False

    async def start(
        self,
        committed: Mapping[TopicPartition, int | None],
        log_starts: Mapping[TopicPartition, int],
        read_log_ends: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        *,
        topic_ids: Mapping[str, str] = _EMPTY,
        truncated_at: Mapping[TopicPartition, int] = _EMPTY,
    ) -> dict[TopicPartition, Start]:
        """Decide where the partitions of a new assignment start, and write the rows that change or are missing."""
        async with self.engine.begin() as conn:
            stored = await read_positions(conn, committed)
            log_ends = await read_log_ends()
            starts = {
                tp: starting_point(
                    committed[tp],
                    stored.get(tp),
                    Log(
                        self.cluster_id, topic_ids.get(tp.topic, ""), log_starts[tp], log_ends[tp], truncated_at.get(tp)
                    ),
                )
                for tp in sorted(committed)
            }
            for partition, start in starts.items():
                row = Stored(start.row, self.cluster_id, topic_ids.get(partition.topic, ""), start.epoch)
                if stored.get(partition) != row:
                    await set_position(conn, partition, *astuple(row))
                if start.lost:
                    await self.request_reconcile(conn, partition, start.seek)
        self._report_lost(starts)
        self._report_restarts(starts)
        return starts

    async def store_idle(self, batch: Batch) -> None:
        """Check the rows like those of a batch, and store positions that moved without delivering a record."""
        async with self.engine.begin() as conn:
            await check_and_move(conn, batch)

    def _report_lost(self, starts: Mapping[TopicPartition, Start]) -> None:
        for at, start in starts.items():
            if start.lost:
                log.error(
                    "retention deleted records that were never read",
                    topic=at.topic,
                    lost=start.lost,
                    resumed_at=start.seek,
                )
                metrics.RECORDS_LOST.labels(at.topic, str(at.partition)).inc(start.lost)

    def _report_restarts(self, starts: Mapping[TopicPartition, Start]) -> None:
        restarts = sorted(f"{tp.topic}-{tp.partition}" for tp, start in starts.items() if start.restarts)
        if restarts:
            log.info("positions restart", partitions=restarts, cluster_id=self.cluster_id)
