"""The scan and the list of issues are two statements of one rule: they agree on any two tables (law 8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.sync.issues import stream_issues
from tests.support.runs import PAIRS, SCANS, Conductor, found_issues
from tests.support.tables import execute, fill

NAMES = ["PLAYER", "player", "Player", "COACH", "INTERNSHIP", "WIZARD"]
LEVELS = st.one_of(st.none(), st.integers(-1, 9))
Rows = Mapping[tuple[int, str], int | None]


@pytest.fixture
async def loose(engine: AsyncEngine) -> AsyncEngine:
    """A database whose application lets every level and every maximum be NULL."""
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
async def test_both_find_the_same(  # noqa: PLR0913, PLR0917 - what two tables can differ in
    loose: AsyncEngine, settings: Settings, progress: Rows, licenses: Rows, maximum: int | None, name: str | None
) -> None:
    """Names in any case, names that are none, no level, a level out of range, a maximum of nothing."""
    await fill(loose, progress, licenses)  # this database takes a license without a level
    async with loose.begin() as conn:
        await conn.execute(text("UPDATE specializations SET max_levels = :top WHERE id = 'PLAYER'"), {"top": maximum})
    at_once = settings.model_copy(update={"reconcile_grace": timedelta(0)})
    report = await Conductor(loose, at_once).run(specialization=name)
    async with loose.connect() as conn:
        listed = {(one.user_id, one.specialization): one.issue_type async for one in stream_issues(conn, name)}
    assert await found_issues(loose) == listed
    assert report["counts"]["scanned"] - report["counts"]["matching"] == len(listed)
