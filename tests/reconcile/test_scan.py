"""The scan finds every kind of drift and nothing else (law 8), as does the list of issues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from tests.support import tables
from tests.support.runs import PAIRS, SCANS, OneWorker, found_issues, listed_issues
from tests.support.tables import execute, fill, of_players


async def test_two_licenses_of_a_pair_are_healed_in_no_direction(engine: AsyncEngine, one_worker: OneWorker) -> None:
    held = {(1, "PLAYER"): 4, (1, "player"): 2, (2, "Player"): 4, (2, "pLAYER"): 2}
    for direction in get_args(Direction):
        await fill(engine, {(1, "PLAYER"): 3, (2, "PLAYER"): 3}, held)
        report = await one_worker.run(direction=direction, dry_run=False, force=True)
        assert await found_issues(engine) == dict.fromkeys(held, "duplicate")
        assert (report["counts"]["needs_decision"], report["counts"]["healed"]) == (4, 0)
        assert await tables.licenses(engine) == held
        assert await tables.progress(engine) == {(1, "PLAYER"): 3, (2, "PLAYER"): 3}


async def test_a_license_under_a_wrong_name_needs_a_decision(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """It is reported once, and never as a missing license."""
    kinds = {(1, "player"): "wrong_case", (2, "player"): "duplicate", (3, "WIZARD"): "unknown_specialization"}
    await fill(engine, of_players(3, 3), dict.fromkeys([*kinds, (2, "PLAYER")], 3))
    report = await one_worker.run()
    assert await found_issues(engine) == kinds
    assert (report["counts"]["needs_decision"], report["counts"]["missing_license"]) == (3, 0)


NAMES = ["PLAYER", "player", "Player", "COACH", "INTERNSHIP", "WIZARD"]
LEVELS = st.one_of(st.none(), st.integers(-1, 9))
Rows = Mapping[tuple[int, str], int | None]


@pytest.fixture
async def loose(engine: AsyncEngine) -> AsyncEngine:
    """A database that allows NULL in every level and every maximum."""
    await execute(
        engine,
        "ALTER TABLE user_licenses ALTER current_level DROP NOT NULL, ALTER max_achieved_level DROP NOT NULL",
        "ALTER TABLE specializations ALTER max_levels DROP NOT NULL",
    )
    return engine


@SCANS
@given(
    progress=st.dictionaries(st.sampled_from(PAIRS[:9]), LEVELS, max_size=9),
    licenses=st.dictionaries(st.tuples(st.integers(1, 3), st.sampled_from(NAMES)), LEVELS, max_size=12),
    maximum=st.sampled_from([None, 0, 3, 8]),
    name=st.sampled_from([None, "player"]),
)
async def test_the_scan_and_the_list_of_issues_find_the_same(  # noqa: PLR0913, PLR0917 - what two tables can differ in
    loose: AsyncEngine, one_worker: OneWorker, progress: Rows, licenses: Rows, maximum: int | None, name: str | None
) -> None:
    """Names in any case, unknown names, missing levels, levels out of range, and no maximum."""
    await fill(loose, progress, licenses)  # this database accepts a license without a level
    top = "NULL" if maximum is None else maximum
    await execute(loose, f"UPDATE specializations SET max_levels = {top} WHERE id = 'PLAYER'")
    report = await one_worker.run(specialization=name)
    found = await listed_issues(loose, name)
    assert await found_issues(loose) == found
    assert report["counts"]["scanned"] - report["counts"]["matching"] == len(found)
