"""The positions in PostgreSQL: where a partition begins, what a batch moves, offsets without a record (law 3).

`starting_point` is pure: where a consumer begins, given what Kafka and the database say.
"""

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
"""Lock the position rows of a batch, move those that got further (a replay leaves them), return where they were: the
consumer compares that with what it found or stored last (law 3)."""

_READ_POSITIONS = text("""
    SELECT a.topic, a.partition, a.next_offset, a.cluster_id, a.topic_id, a.leader_epoch
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])) AS k (topic, partition)
      JOIN levelsync.applied_offsets a ON a.topic = k.topic AND a.partition = k.partition
""")
"""Where the partitions of a new assignment stand."""

_SET_POSITION = text("""
    INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id, topic_id, leader_epoch)
    VALUES (:topic, :partition, :next_offset, :cluster_id, :topic_id, :leader_epoch)
        ON CONFLICT (topic, partition) DO UPDATE
       SET next_offset = excluded.next_offset, cluster_id = excluded.cluster_id, topic_id = excluded.topic_id,
           leader_epoch = excluded.leader_epoch, updated_at = clock_timestamp()
""")
"""Restart a partition's position."""


class Evicted(Exception):  # noqa: N818 - an event in the group's life, not an error of ours
    """The position row is higher than this consumer left it: another member owns the partition now."""


class DatabaseWentBack(Exception):  # noqa: N818 - as above
    """The position row is lower than this consumer left it: a failover or a restore; work starts again there."""


class TopicRecreated(Exception):  # noqa: N818 - as above
    """The position row counts on another topic of the same name: one of the two was deleted."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll delivered: the records, what the position rows must say, and where they are to go."""

    records: Sequence[ConsumerRecord]
    expected: Positions
    positions: Positions
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic that the records were read from; '' or absent where the broker gives none. The position rows
    must hold the same ids."""
    leader_epochs: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The epoch of the last record before each of `positions`; stored with the position, -1 where it is not known."""

    def epoch_at(self, partition: TopicPartition, position: int) -> int:
        """Return the leader epoch to store with a position: it is known where the batch ends."""
        known = position == self.positions.get(partition)
        return self.leader_epochs.get(partition, -1) if known else -1


@dataclass(frozen=True, slots=True)
class Stored:
    """A position row: the next offset to apply, the cluster and topic that it counts on, and its record's epoch."""

    next_offset: int
    cluster_id: str
    topic_id: str = ""
    leader_epoch: int = -1


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin a partition: seek there; `row` is what the position row must say; `lost` records are gone."""

    seek: int
    row: int
    lost: int = 0
    restarts: bool = False
    epoch: int = -1
    """The leader epoch of the record before `row`, -1 where it is not known."""


@dataclass(frozen=True, slots=True)
class Log:
    """A partition as Kafka shows it now; `cut_at` is where its log ended when it was cut off, or None."""

    cluster_id: str
    topic_id: str
    start: int
    end: int
    cut_at: int | None = None


def starting_point(committed: int | None, stored: Stored | None, log: Log) -> Start:
    """The smaller of the group's commit and the position row (law 3).

    Restart at the earliest record: without a commit, on another cluster, on another topic of the same name, or when
    a position lies beyond the partition's end. A log that was cut off and has grown again goes on where it was cut off.
    Records between the row and the log's start were never applied and are lost to retention, also where the commit is
    gone: Kafka forgets a group that is away for a week. The row then moves there, so that the next start does not find
    the same loss again while the group's commit still lies below it.
    """
    if stored is not None and (stored.cluster_id not in {"", log.cluster_id} or differ(stored.topic_id, log.topic_id)):
        return Start(log.start, log.start, restarts=True)
    if committed is None:
        return Start(log.start, log.start, lost=max(log.start - stored.next_offset, 0) if stored else 0, restarts=True)
    row = stored.next_offset if stored else 0
    if max(committed, row) > log.end:
        return Start(log.start, log.start, restarts=True)
    if log.cut_at is not None and log.cut_at < row:
        seek = max(min(committed, log.cut_at), log.start)
        return Start(seek, seek, restarts=True)
    seek = max(min(committed, row), log.start)
    epoch = stored.leader_epoch if stored is not None and row >= log.start else -1
    return Start(seek, max(row, seek), lost=max(log.start - row, 0), epoch=epoch)


async def read_positions(conn: AsyncConnection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Stored]:
    """The position rows that there are."""
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
    """Write a position row whatever it said before: only for a partition that starts."""
    row = Stored(offset, cluster_id, topic_id, leader_epoch)
    await conn.execute(_SET_POSITION, {"topic": partition.topic, "partition": partition.partition} | asdict(row))


async def check_and_move(conn: AsyncConnection, move: Batch) -> None:
    """Lock the rows of `expected`, move them to where this consumer gets with this transaction; a replay leaves them.

    They must count on the topic that was read, and be where this consumer found or stored them last.

    Raises:
        TopicRecreated: a row counts on another topic of the same name.
        Evicted: a row is higher.
        DatabaseWentBack: a row is lower, or not there any more.
    """
    partitions = sorted(move.expected)
    values = _keys(partitions) | {
        "offsets": [move.positions.get(partition) for partition in partitions],
        "epochs": [move.leader_epochs.get(partition, -1) for partition in partitions],
    }
    rows = await conn.execute(_MOVE_POSITIONS, values)
    found = {TopicPartition(r.topic, r.partition): r for r in rows}
    for partition in partitions:
        row, left = found.get(partition), move.expected[partition]
        at, name = -1 if row is None else row.next_offset, f"{partition.topic}-{partition.partition}"
        if row is not None and differ(row.topic_id, move.topic_ids.get(partition.topic, "")):
            raise TopicRecreated(f"{name}: the row counts on topic {row.topic_id}, not on the one that was read")
        if at != left:
            raise (Evicted if at > left else DatabaseWentBack)(f"{name}: row at {at}, left at {left}")


def differ(one: str, other: str) -> bool:
    """Whether two topic ids are those of two topics; an unknown id ('') says nothing."""
    return bool(one and other and one != other)


def _keys(partitions: list[TopicPartition]) -> dict[str, list[Any]]:
    return {"topics": [p.topic for p in partitions], "partitions": [p.partition for p in partitions]}


log = structlog.get_logger(__name__)
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
AskForReconcile = Callable[[AsyncConnection, TopicPartition, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DatabaseKeeper:
    """`service.stream.consumer.PositionKeeper` on the table `levelsync.applied_offsets`."""

    engine: AsyncEngine
    cluster_id: str
    ask_for_reconcile: AskForReconcile
    """What is done about a loss, in the transaction that stores where a partition goes on."""

    async def is_new(self) -> bool:
        """Return whether no position in this cluster is kept: the consumer groups are new there too.

        False where PostgreSQL does not answer: only the time of a start depends on it.
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
        topic_ids: Mapping[str, str] = _NOTHING,
        cut_at: Mapping[TopicPartition, int] = _NOTHING,
    ) -> dict[TopicPartition, Start]:
        """Decide where the partitions of a new assignment begin; write rows that restart, change or are missing."""
        async with self.engine.begin() as conn:
            stored = await read_positions(conn, committed)
            log_ends = await read_log_ends()
            starts = {
                tp: starting_point(
                    committed[tp],
                    stored.get(tp),
                    Log(self.cluster_id, topic_ids.get(tp.topic, ""), log_starts[tp], log_ends[tp], cut_at.get(tp)),
                )
                for tp in sorted(committed)
            }
            for partition, start in starts.items():
                row = Stored(start.row, self.cluster_id, topic_ids.get(partition.topic, ""), start.epoch)
                if stored.get(partition) != row:
                    await set_position(conn, partition, *astuple(row))
                if start.lost:
                    await self.ask_for_reconcile(conn, partition, start.seek)
        self._report_lost(starts)
        self._report_restarts(starts)
        return starts

    async def store_idle(self, batch: Batch) -> None:
        """Check the rows like a batch's; store positions that moved without delivering a record."""
        async with self.engine.begin() as conn:
            await check_and_move(conn, batch)

    def _report_lost(self, starts: Mapping[TopicPartition, Start]) -> None:
        for at, start in starts.items():
            if start.lost:
                log.error("retention took records unread", topic=at.topic, lost=start.lost, resumed_at=start.seek)
                metrics.RECORDS_LOST.labels(at.topic, str(at.partition)).inc(start.lost)

    def _report_restarts(self, starts: Mapping[TopicPartition, Start]) -> None:
        restarts = sorted(f"{tp.topic}-{tp.partition}" for tp, start in starts.items() if start.restarts)
        if restarts:
            log.info("positions restart", partitions=restarts, cluster_id=self.cluster_id)
