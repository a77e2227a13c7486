"""The scan finds every kind of drift, and nothing else (law 8)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.laws.tables import empty_tables
from tests.reconcile.conductor import Conductor

Progress = Mapping[tuple[int, str], int | None]
Licenses = Mapping[tuple[int, str], int]
MAXIMUM = {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}
PAIRS = [(user, name) for user in range(1, 6) for name in MAXIMUM]
SCANS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


@pytest.fixture
def at_once(settings: Settings) -> Settings:
    """Without a grace time."""
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


_ADD_PROGRESS = text("""
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp)
    VALUES (:user, :name, :level, 0)
""")
_ADD_LICENSE = text("""
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    VALUES (:user, :name, :level, :level, now())
""")


async def fill(engine: AsyncEngine, progress: Progress, licenses: Licenses) -> None:
    """Make the two tables hold exactly this."""
    await empty_tables(engine)
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE levelsync.reconcile_runs, levelsync.outbox CASCADE"))
        for statement, rows in ((_ADD_PROGRESS, progress), (_ADD_LICENSE, licenses)):
            for (user, name), level in rows.items():
                await conn.execute(statement, {"user": user, "name": name, "level": level})


def naive_kind(pair: tuple[int, str], progress: Progress, licenses: Licenses) -> str:
    """What a person would say of one pair."""
    p, li, top = progress.get(pair), licenses.get(pair), MAXIMUM[pair[1]]
    if pair in progress and p is None:
        return "null_level"
    if any(level is not None and not 1 <= level <= top for level in (p, li)):
        return "out_of_range"
    if li is None:
        return "missing_license"
    if p is None:
        return "missing_progress"
    return "mismatched" if p != li else ""


async def found_issues(engine: AsyncEngine) -> dict[tuple[int, str], str]:
    """What the last run kept."""
    async with engine.connect() as conn:
        rows = await conn.execute(text("SELECT user_id, specialization, kind FROM levelsync.drift_issues"))
        return {(row.user_id, row.specialization): row.kind for row in rows}


@SCANS
@given(
    progress=st.dictionaries(st.sampled_from(PAIRS), st.one_of(st.none(), st.integers(0, 9)), max_size=15),
    licenses=st.dictionaries(st.sampled_from(PAIRS), st.integers(0, 9), max_size=15),
    name=st.sampled_from([None, "PLAYER", "internship"]),
)
async def test_the_scan_finds_what_a_naive_comparison_finds(
    engine: AsyncEngine,
    at_once: Settings,
    progress: Progress,
    licenses: Licenses,
    name: str | None,
) -> None:
    """Any two tables, all specializations or one."""
    await fill(engine, progress, licenses)
    report = await Conductor(engine, at_once).run(specialization=name)
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


@pytest.mark.parametrize(
    ("written", "beside", "kind"),
    [
        ("player", None, "wrong_case"),
        ("player", "PLAYER", "duplicate"),
        ("WIZARD", None, "unknown_specialization"),
    ],
)
async def test_a_license_under_a_name_that_is_none_needs_a_decision(
    engine: AsyncEngine, at_once: Settings, written: str, beside: str | None, kind: str
) -> None:
    """It is told once, for its pair, and never as a missing license."""
    licenses = {(1, written): 3} | ({(1, beside): 3} if beside else {})
    await fill(engine, {(1, "PLAYER"): 3} if written != "WIZARD" else {}, licenses)
    report = await Conductor(engine, at_once).run()
    assert await found_issues(engine) == {(1, written): kind}
    assert report["counts"]["needs_decision"] == 1
    assert report["counts"]["missing_license"] == 0
