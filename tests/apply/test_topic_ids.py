"""A position belongs to a topic, not to a topic's name (law 3)."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.stream import positions
from service.stream.positions import Batch, Stored, TopicRecreated
from tests.support.tables import execute

PARTITION = TopicPartition("progress.leveled-up", 0)


async def stand_at(engine: AsyncEngine, offset: int, topic_id: str) -> None:
    async with engine.begin() as conn:
        await positions.set_position(conn, PARTITION, offset, "", topic_id)


async def move(engine: AsyncEngine, topic_id: str, to: int = 9) -> None:
    batch = Batch((), {PARTITION: 5}, {PARTITION: to}, {PARTITION.topic: topic_id}, {PARTITION: 3})
    async with engine.begin() as conn:
        await positions.check_and_move(conn, batch)


async def row(engine: AsyncEngine) -> Stored:
    async with engine.connect() as conn:
        return (await positions.read_positions(conn, [PARTITION]))[PARTITION]


async def test_a_batch_of_a_deleted_topic_is_refused_where_the_row_counts_on_the_new_one(engine: AsyncEngine) -> None:
    """Even where the offsets happen to agree."""
    await stand_at(engine, 5, "new")
    with pytest.raises(TopicRecreated, match=r"progress\.leveled-up-0: the row belongs to topic new"):
        await move(engine, "old")
    assert (await row(engine)).next_offset == 5


@pytest.mark.parametrize(("kept", "read"), [("same", "same"), ("", "any"), ("any", "")])
async def test_equal_and_unknown_ids_move_the_row_and_its_epoch(engine: AsyncEngine, kept: str, read: str) -> None:
    """The embedded broker reports no id, and a row of the previous release contains none."""
    await stand_at(engine, 5, kept)
    await move(engine, read)
    assert await row(engine) == Stored(9, "", kept, 3)


async def test_a_replay_leaves_the_row_and_its_epoch(engine: AsyncEngine) -> None:
    await stand_at(engine, 5, "same")
    await move(engine, "same", to=2)
    assert await row(engine) == Stored(5, "", "same", -1)


async def test_rows_of_the_previous_release_have_no_topic(engine: AsyncEngine) -> None:
    columns = "(topic, partition, next_offset, cluster_id)"
    values = "('progress.leveled-up', 0, 4, 'here')"
    await execute(engine, f"INSERT INTO levelsync.applied_offsets {columns} VALUES {values}")
    assert await row(engine) == Stored(4, "here", "", -1)
