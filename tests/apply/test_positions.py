"""Where a consumer begins a partition, and when a batch moves its row (law 3)."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.stream import positions
from service.stream.positions import Batch, Log, Start, Stored, TopicRecreated, starting_point
from tests.support.tables import execute

HERE = "cluster-a"
PARTITION = TopicPartition("progress.leveled-up", 0)


def start(committed: int | None, row: int | None, *, first: int = 0, end: int = 1000, cluster: str = HERE) -> Start:
    stored = None if row is None else Stored(row, cluster)
    return starting_point(committed, stored, Log(HERE, "", first, end))


@pytest.mark.parametrize(
    ("committed", "row", "there", "begins"),
    [
        pytest.param(100, 200, {}, Start(seek=100, row=200), id="at the commit, below the row"),
        pytest.param(200, 100, {}, Start(seek=100, row=100), id="at the row, below the commit"),
        pytest.param(None, 500, {"first": 7}, Start(seek=7, row=7, restarts=True), id="again without a commit"),
        pytest.param(500, 500, {"cluster": "b"}, Start(seek=0, row=0, restarts=True), id="again on another cluster"),
        pytest.param(5, 5, {"cluster": ""}, Start(seek=5, row=5), id="at a row that an operator made"),
        pytest.param(500, None, {}, Start(seek=0, row=0), id="at the first record, without a row"),
        pytest.param(2000, 10, {}, Start(seek=0, row=0, restarts=True), id="again where the commit is beyond the end"),
        pytest.param(10, 2000, {}, Start(seek=0, row=0, restarts=True), id="again where the row is beyond the end"),
        pytest.param(100, 100, {"first": 150}, Start(seek=150, row=150, lost=50), id="behind a loss"),
        pytest.param(None, 100, {"first": 150}, Start(150, 150, lost=50, restarts=True), id="again, with a loss"),
        pytest.param(None, 100, {"first": 150, "cluster": "b"}, Start(150, 150, restarts=True), id="again, elsewhere"),
        pytest.param(100, 150, {"first": 150}, Start(seek=150, row=150), id="behind a loss that the row is past"),
        pytest.param(10, 500, {"first": 150}, Start(seek=150, row=500), id="at the log's start, which was applied"),
        pytest.param(150, 150, {"first": 150, "end": 150}, Start(seek=150, row=150), id="at the end of an empty log"),
    ],
)
def test_a_consumer_begins(committed: int | None, row: int | None, there: dict[str, Any], begins: Start) -> None:
    assert start(committed, row, **there) == begins


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
    """A position belongs to a topic, not to its name, even where the offsets happen to agree."""
    await stand_at(engine, 5, "new")
    with pytest.raises(TopicRecreated, match=r"progress\.leveled-up-0: the row belongs to topic new"):
        await move(engine, "old")
    assert (await row(engine)).next_offset == 5


async def test_equal_and_unknown_ids_move_the_row_and_its_epoch(engine: AsyncEngine) -> None:
    """The embedded broker reports no id, and a row of the previous release contains none."""
    for kept, read in (("same", "same"), ("", "any"), ("any", "")):
        await execute(engine, "TRUNCATE levelsync.applied_offsets")
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
