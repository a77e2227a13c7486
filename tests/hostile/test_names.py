"""Names of specializations that differ in their case only."""

from __future__ import annotations

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.applier import Events, NotApplied, rise, sync
from tests.support.tables import add_rows, execute, letters, licenses, steps

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
