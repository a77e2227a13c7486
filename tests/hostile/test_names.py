"""Names of specializations that differ in their case only."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from tests.support.applier import Events, NotApplied, rise, sync
from tests.support.tables import add_rows, execute, fill, letters, licenses, progress, read, steps

_ADD = "INSERT INTO specializations (id, name, max_levels) VALUES ('{}', 'Goalie', 8)"


async def test_a_fence_outlives_a_change_of_the_name_s_case(events: Events, engine: AsyncEngine) -> None:
    """Law 2: what occurred before the lowering never raises the pair again, however the name is written now."""
    await execute(engine, _ADD.format("goalie"))
    await add_rows(engine, progress={(1, "goalie"): 3}, licenses={(1, "goalie"): 5})
    assert (await sync(engine, 1, "progress_to_license", "goalie")).after.license_level == 3
    await execute(
        engine, "DELETE FROM specialization_progress", "UPDATE specializations SET id = 'GOALIE' WHERE id = 'goalie'"
    )
    await events.apply(rise(1, 5, "goalie"))
    await events.apply(rise(1, 5, "GOALIE"))
    assert await licenses(engine) == {(1, "goalie"): 3}
    assert await steps(engine) == [(1, "goalie", 5, 3)]


async def test_two_specializations_with_one_folded_name_are_a_fault_of_the_installation(
    events: Events, engine: AsyncEngine
) -> None:
    """Which of them a license belongs to cannot be told: nothing is written, and both are named."""
    await execute(engine, _ADD.format("Player"))
    await add_rows(engine, licenses={(1, "PLAYER"): 2})
    with pytest.raises(NotApplied) as raised:
        await events.apply(rise(1, 3), rise(1, 4, "Player"))
    assert raised.value.fault.kind.name == "INSTALLATION"
    assert "PLAYER" in raised.value.fault.message
    assert "Player" in raised.value.fault.message
    assert (await licenses(engine), await letters(engine)) == ({(1, "PLAYER"): 2}, [])


@pytest.mark.parametrize("direction", ["progress_to_license", "license_to_progress", "highest"])
async def test_a_sync_of_a_pair_with_two_licenses_names_them_and_writes_nothing(
    engine: AsyncEngine, direction: Direction
) -> None:
    """Neither is the pair's level: somebody has to remove one."""
    held = {(1, "PLAYER"): 4, (1, "player"): 2}
    await fill(engine, progress={(1, "PLAYER"): 3}, licenses=held)
    result = await sync(engine, 1, direction)
    assert (result.success, result.action.value) == (False, "none")
    assert "there are 2 licenses (PLAYER, player)" in result.message
    assert (await licenses(engine), await progress(engine)) == (held, {(1, "PLAYER"): 3})
    assert await read(engine, "SELECT user_id FROM levelsync.fences") == []


@pytest.mark.parametrize(
    ("held", "raised"),
    [
        ({(1, "PLAYER"): 4, (1, "player"): 2}, {(1, "PLAYER"): 6, (1, "player"): 2}),
        ({(1, "player"): 4, (1, "Player"): 2}, {(1, "player"): 4, (1, "Player"): 6}),
    ],
)
async def test_events_of_a_pair_with_two_licenses_raise_one_of_them_and_always_the_same(
    events: Events, engine: AsyncEngine, held: dict[tuple[int, str], int], raised: dict[tuple[int, str], int]
) -> None:
    """The one with the specialization's own name, or else the first by its letters' codes; the levels never flap."""
    await add_rows(engine, licenses=held)
    await events.apply(rise(1, 5), rise(1, 6, "player"), rise(1, 3, "Player"))
    await events.apply(rise(1, 5, "pLAYER"))
    assert (await licenses(engine), await letters(engine)) == (raised, [])
