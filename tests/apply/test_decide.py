"""How PostgreSQL decides what a batch of events changes (law 1)."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied
from tests.support.applier import Partitions, one
from tests.support.model import LEVELED_UP
from tests.support.records import START
from tests.support.tables import PLAYER, fill, history, licenses, read, steps


async def decided(engine: AsyncEngine, level: int | None, *events: tuple[int, int]) -> Applied:
    """Apply events of one pair, (level, minute) each, to a license of this level."""
    await fill(engine, licenses={} if level is None else {PLAYER: level})
    partitions = await Partitions(engine).begin()
    return await partitions.apply(LEVELED_UP, partitions.records([one(to_level=to, minutes=at) for to, at in events]))


async def test_three_steps_in_one_batch_are_three_rises(engine: AsyncEngine) -> None:
    await decided(engine, 2, (3, 0), (4, 1), (5, 2))
    assert await steps(engine) == [(*PLAYER, 2, 3), (*PLAYER, 3, 4), (*PLAYER, 4, 5)]
    ((advanced_at,),) = await read(engine, "SELECT last_advanced_at FROM user_licenses")
    assert advanced_at == (START + timedelta(minutes=2)).replace(tzinfo=None)


async def test_a_created_row_rises_from_zero_and_then_further(engine: AsyncEngine) -> None:
    applied = await decided(engine, None, (3, 0), (5, 1))
    assert [applied.outcomes[index] for index in (0, 1)] == ["created", "applied"]
    assert await steps(engine) == [(*PLAYER, 0, 3), (*PLAYER, 3, 5)]
    assert [reason for *_, reason in await history(engine)] == [f"ProgressLeveledUp /test e{at}" for at in (0, 1)]
    (row,) = await read(engine, "SELECT * FROM user_licenses")
    begun = START.replace(tzinfo=None)
    assert (row.started_at, row.last_advanced_at) == (begun, begun + timedelta(minutes=1))
    assert (row.current_level, row.max_achieved_level) == (5, 5)


async def test_an_equal_or_lower_level_writes_nothing(engine: AsyncEngine) -> None:
    applied = await decided(engine, 5, (5, 0), (4, 0))
    assert [applied.outcomes[index] for index in (0, 1)] == ["equal", "ahead"]
    assert (await licenses(engine), await steps(engine)) == ({PLAYER: 5}, [])


async def test_a_missing_user_is_a_dead_letter_only_where_a_row_would_be_made(engine: AsyncEngine) -> None:
    """An existing row proves that its user exists."""
    await fill(engine)
    partitions = await Partitions(engine).begin()
    applied = await partitions.apply(LEVELED_UP, partitions.records([one(user=9999)]))
    assert [(letter.index, letter.reason) for letter in applied.letters] == [(0, "unknown_user")]
    assert await licenses(engine) == {}
