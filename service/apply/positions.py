"""How far each partition has been applied, kept in the transaction of the effects (law 3).

`starting_point` is pure: where a consumer begins, given what Kafka and the database say.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import sql

Positions = Mapping[TopicPartition, int]


class Evicted(Exception):  # noqa: N818 - an event in the group's life, not an error of ours
    """The position row is higher than this consumer left it: another member owns the partition now."""


class DatabaseWentBack(Exception):  # noqa: N818 - as above
    """The position row is lower than this consumer left it: a failover or a restore; work starts again there."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A position row: the next offset to apply, and the Kafka cluster that it counts on."""

    next_offset: int
    cluster_id: str


@dataclass(frozen=True, slots=True)
class Start:
    """Where to begin a partition: seek there; `row` is what the position row must say; `lost` records are gone."""

    seek: int
    row: int
    lost: int = 0
    anew: bool = False


def starting_point(
    committed: int | None, stored: Stored | None, cluster_id: str, log_start: int, log_end: int
) -> Start:
    """The smaller of the group's commit and the position row (law 3).

    Begun anew at the earliest record: without a commit, on another cluster, or when a position lies beyond the
    partition's end (a topic made anew, or cut off). Records between the row and `log_start` were never applied and are
    lost to retention, also where the commit is gone: Kafka forgets a group that is away for a week. The row then moves
    there, so that the next start does not find the same loss again while the group's commit still lies below it.
    """
    if stored is not None and stored.cluster_id not in {"", cluster_id}:
        return Start(log_start, log_start, anew=True)
    if committed is None:
        return Start(log_start, log_start, lost=max(log_start - stored.next_offset, 0) if stored else 0, anew=True)
    row = stored.next_offset if stored else 0
    if max(committed, row) > log_end:
        return Start(log_start, log_start, anew=True)
    seek = max(min(committed, row), log_start)
    return Start(seek, max(row, seek), lost=max(log_start - row, 0))


async def read_positions(conn: AsyncConnection, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, Stored]:
    """The position rows that there are."""
    rows = await conn.execute(sql.READ_POSITIONS, _keys(sorted(partitions)))
    return {TopicPartition(r.topic, r.partition): Stored(r.next_offset, r.cluster_id) for r in rows}


async def set_position(conn: AsyncConnection, partition: TopicPartition, offset: int, cluster_id: str) -> None:
    """Write a position row whatever it said before: only for a partition that starts."""
    values = {"topic": partition.topic, "partition": partition.partition}
    await conn.execute(sql.SET_POSITION, values | {"next_offset": offset, "cluster_id": cluster_id})


async def check_and_move(conn: AsyncConnection, expected: Positions, positions: Positions) -> None:
    """Lock the rows of `expected`, move them to where this consumer gets with this transaction; a replay leaves them.

    They must be where this consumer found or stored them last.

    Raises:
        Evicted: a row is higher.
        DatabaseWentBack: a row is lower, or not there any more.
    """
    partitions = sorted(expected)
    values = _keys(partitions) | {"offsets": [positions.get(partition) for partition in partitions]}
    rows = await conn.execute(sql.MOVE_POSITIONS, values)
    found = {TopicPartition(r.topic, r.partition): r.next_offset for r in rows}
    for partition in partitions:
        row, left = found.get(partition, -1), expected[partition]
        if row != left:
            name = f"{partition.topic}-{partition.partition}"
            raise (Evicted if row > left else DatabaseWentBack)(f"{name}: row at {row}, left at {left}")


def after(expected: Positions, positions: Positions) -> dict[TopicPartition, int]:
    """What the rows say once `positions` were stored over `expected`."""
    return {partition: max(left, positions.get(partition, 0)) for partition, left in expected.items()}


def _keys(partitions: list[TopicPartition]) -> dict[str, list[Any]]:
    return {"topics": [p.topic for p in partitions], "partitions": [p.partition for p in partitions]}
