"""A partition that begins here while another member still moves it on does not restart (law 3)."""

from __future__ import annotations

from typing import Any

import pytest
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.lost import ask_for_reconcile
from service.stream.positions import DatabaseKeeper, Log, Start, Stored, set_position, starting_point
from service.telemetry import metrics

PARTITION = TopicPartition("progress.leveled-up", 0)
Offsets = dict[TopicPartition, int]


async def move_row(engine: AsyncEngine, offset: int) -> None:
    async with engine.begin() as conn:
        await set_position(conn, PARTITION, offset, "here")


async def test_a_row_that_moves_on_past_the_end_that_was_read_is_no_topic_made_anew(engine: AsyncEngine) -> None:
    """The end is read after the row: read before it, a busy topic would be replayed from its beginning."""
    await move_row(engine, 1000)

    async def another_member_goes_on() -> Offsets:
        await move_row(engine, 1010)
        return {PARTITION: 1005}

    starts = await DatabaseKeeper(engine, "here", ask_for_reconcile).start(
        {PARTITION: 990}, {PARTITION: 0}, another_member_goes_on
    )
    assert starts == {PARTITION: Start(seek=990, row=1000)}


def test_a_week_away_forgets_the_commit_but_not_the_loss() -> None:
    """Law 3: by default Kafka keeps commits of a group that is away no longer than the records themselves."""
    begun = starting_point(None, Stored(100, "here"), Log("here", "", 150, 900))
    assert begun == Start(seek=150, row=150, lost=50, anew=True)
    assert starting_point(None, Stored(100, "there"), Log("here", "", 150, 900)).lost == 0


async def test_a_loss_is_counted_when_it_is_committed(engine: AsyncEngine) -> None:
    """And so once, however often the start has to be repeated."""
    await move_row(engine, 10)
    lost = metrics.RECORDS_LOST.labels(PARTITION.topic, "0")
    before = lost._value.get()

    async def fails(*_given: Any) -> None:
        raise ConnectionError("PostgreSQL went away")

    async def end() -> Offsets:
        return {PARTITION: 50}

    with pytest.raises(ConnectionError):
        await DatabaseKeeper(engine, "here", fails).start({PARTITION: 10}, {PARTITION: 30}, end)
    assert lost._value.get() == before
    for _ in range(2):
        await DatabaseKeeper(engine, "here", ask_for_reconcile).start({PARTITION: 10}, {PARTITION: 30}, end)
    assert lost._value.get() == before + 20
