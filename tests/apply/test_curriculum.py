"""A batch compares the curriculum under its locks with the one that it was decided with."""

from __future__ import annotations

from typing import cast

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.store.functions import create_v1
from tests.support.tables import execute, read

AS_A_VIEW = (
    "ALTER TABLE specializations RENAME TO specialization_rows",
    "CREATE VIEW specializations AS SELECT * FROM specialization_rows",
)
ONCE_MORE = "UPDATE specializations SET max_levels = max_levels"
LOWER = "UPDATE specializations SET max_levels = max_levels - 1 WHERE id = 'PLAYER'"
ANOTHER = "INSERT INTO specializations (id, name, max_levels) VALUES ('GOALIE', 'Goalie', 8)"
REMOVE = "DELETE FROM specializations WHERE id = 'INTERNSHIP'"
DROP = "ALTER TABLE specializations DROP COLUMN max_levels"
CREATE = "ALTER TABLE specializations ADD COLUMN max_levels int NOT NULL DEFAULT 3"
EMPTY = "DELETE FROM specializations"


@pytest.mark.parametrize("kind", ["table", "view"])
async def test_names_and_maxima_are_the_curriculum(engine: AsyncEngine, kind: str) -> None:
    """Writing a row again with the same maximum does not change it."""
    if kind == "view":
        await execute(engine, *AS_A_VIEW)
        async with engine.begin() as conn:
            await conn.run_sync(create_v1)
    for change, same in (("SELECT 1", True), (ONCE_MORE, True), (LOWER, False), (ANOTHER, False), (REMOVE, False)):
        before = await _curriculum(engine)
        await execute(engine, change)
        assert await _is_still(engine, before) is same, change


async def test_another_column_of_maxima_is_another_curriculum(engine: AsyncEngine) -> None:
    """ALTER TABLE writes no row again, neither where it drops a column nor where it adds one with a default."""
    before = await _curriculum(engine)
    await execute(engine, DROP)
    assert not await _is_still(engine, before)
    without = await _curriculum(engine)
    assert await _is_still(engine, without)
    await execute(engine, CREATE)
    assert not await _is_still(engine, without)
    assert not await _is_still(engine, before)


async def test_a_table_that_was_emptied_is_another_curriculum_and_stays_one(engine: AsyncEngine) -> None:
    before = await _curriculum(engine)
    await execute(engine, EMPTY)
    assert not await _is_still(engine, before)
    assert await _curriculum(engine) is None
    assert await _is_still(engine, None)
    await execute(engine, ANOTHER)
    assert not await _is_still(engine, None)


async def _curriculum(engine: AsyncEngine) -> str | None:
    [(found,)] = await read(engine, "SELECT levelsync.curriculum_v1()")
    return cast("str | None", found)


async def _is_still(engine: AsyncEngine, curriculum: str | None) -> bool:
    [(same,)] = await read(engine, "SELECT levelsync.curriculum_is_v1(CAST(:known AS text))", known=curriculum)
    assert same is not None
    return bool(same)
