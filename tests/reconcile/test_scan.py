"""The scan finds every kind of drift and nothing else (law 8), as does the list of issues."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.sync.issues import stream_issues
from tests.support import tables
from tests.support.runs import PAIRS, SCANS, Licenses, OneWorker, Progress, found_issues, naive_kind
from tests.support.tables import execute, fill


@SCANS
@given(
    progress=st.dictionaries(st.sampled_from(PAIRS), st.one_of(st.none(), st.integers(0, 9)), max_size=15),
    licenses=st.dictionaries(st.sampled_from(PAIRS), st.integers(0, 9), max_size=15),
    name=st.sampled_from([None, "PLAYER", "internship"]),
)
async def test_the_scan_finds_what_a_naive_comparison_finds(
    engine: AsyncEngine, one_worker: OneWorker, progress: Progress, licenses: Licenses, name: str | None
) -> None:
    await fill(engine, progress, licenses)
    report = await one_worker.run(specialization=name)
    pairs = {pair for pair in progress.keys() | licenses.keys() if name is None or pair[1] == name.upper()}
    kinds = {pair: naive_kind(pair, progress, licenses) for pair in pairs}
    assert await found_issues(engine) == {pair: kind for pair, kind in kinds.items() if kind}
    counts = report["counts"]
    assert report["status"] == "completed"
    assert counts["scanned"] == len(pairs)
    assert counts["matching"] == sum(kind == "" for kind in kinds.values())
    for kind in ("mismatched", "missing_license", "missing_progress"):
        assert counts[kind] == sum(found == kind for found in kinds.values())
    assert counts["needs_decision"] == sum(kind in {"null_level", "out_of_range"} for kind in kinds.values())
    assert counts["unconfirmed"] == counts["changed_meanwhile"] == counts["healed"] == counts["failed"] == 0


async def test_two_licenses_of_a_pair_are_duplicates_in_every_direction(
    engine: AsyncEngine, one_worker: OneWorker
) -> None:
    held = {(1, "PLAYER"): 4, (1, "player"): 2, (2, "Player"): 4, (2, "pLAYER"): 2}
    for direction in get_args(Direction):
        await fill(engine, {(1, "PLAYER"): 3, (2, "PLAYER"): 3}, held)
        report = await one_worker.run(direction=direction, dry_run=False, force=True)
        assert await found_issues(engine) == dict.fromkeys(held, "duplicate")
        assert (report["counts"]["needs_decision"], report["counts"]["healed"]) == (4, 0)
        assert await tables.licenses(engine) == held
        assert await tables.progress(engine) == {(1, "PLAYER"): 3, (2, "PLAYER"): 3}


@pytest.mark.parametrize(
    ("written", "beside", "kind"),
    [
        ("player", None, "wrong_case"),
        ("player", "PLAYER", "duplicate"),
        ("WIZARD", None, "unknown_specialization"),
    ],
)
async def test_a_license_under_a_wrong_name_needs_a_decision(
    engine: AsyncEngine, one_worker: OneWorker, written: str, beside: str | None, kind: str
) -> None:
    """It is reported once, and never as a missing license."""
    licenses = {(1, written): 3} | ({(1, beside): 3} if beside else {})
    await fill(engine, {(1, "PLAYER"): 3} if written != "WIZARD" else {}, licenses)
    report = await one_worker.run()
    assert await found_issues(engine) == {(1, written): kind}
    assert (report["counts"]["needs_decision"], report["counts"]["missing_license"]) == (1, 0)


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
    async with loose.connect() as conn:
        listed = {(one.user_id, one.specialization): one.issue_type async for one in stream_issues(conn, name)}
    assert await found_issues(loose) == listed
    assert report["counts"]["scanned"] - report["counts"]["matching"] == len(listed)
