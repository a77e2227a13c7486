"""Healing: the result of the model, in any direction, and never for a pair that has moved (laws 6 and 8)."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.reconcile import runs, steps
from service.reconcile.runs import cancel_run
from service.reconcile.sql import SET_ISSUES
from service.reconcile.values import COUNTS
from service.settings import Settings
from tests.support.model import Pair
from tests.support.records import MAXIMUM
from tests.support.runs import PAIRS, SCANS, OneWorker, drifted, found_issues, listed_issues, naive_kind, until_step
from tests.support.tables import execute, fill, history, licenses, progress, read, somebody_waits, trigger_sql

DIRECTIONS = get_args(Direction)
HEALABLE = {"mismatched", "missing_license", "missing_progress"}


def healed(levels: tuple[int | None, int | None], direction: str) -> int:
    """Return the level that a pair ends with: that of the believed side, or of the only row."""
    p, li = levels
    if p is None or li is None:
        return p if li is None else li  # type: ignore[return-value]  # one of the two is there
    return max(p, li) if direction == "highest" else p if direction == "progress_to_license" else li


@settings(SCANS, max_examples=40)
@given(
    progress_levels=st.dictionaries(st.sampled_from(PAIRS), st.one_of(st.none(), st.integers(0, 9)), max_size=15),
    license_levels=st.dictionaries(st.sampled_from(PAIRS), st.integers(0, 9), max_size=15),
    name=st.sampled_from([None, "PLAYER", "internship"]),
    direction=st.sampled_from(DIRECTIONS),
)
async def test_a_run_finds_what_a_naive_comparison_finds_and_heals_as_the_model_says(  # noqa: PLR0913, PLR0917
    engine: AsyncEngine,
    one_worker: OneWorker,
    progress_levels: dict[Pair, int | None],
    license_levels: dict[Pair, int],
    name: str | None,
    direction: Direction,
) -> None:
    """A dry run counts the same and writes nothing. A pair that no write can repair stays as it is."""
    await fill(engine, progress_levels, license_levels)
    pairs = [p for p in progress_levels.keys() | license_levels.keys() if name is None or p[1] == name.upper()]
    kinds = {pair: naive_kind(pair, progress_levels, license_levels) for pair in pairs}
    drift = {pair: kind for pair, kind in kinds.items() if kind}
    before = {pair: (progress_levels.get(pair), license_levels.get(pair)) for pair in pairs if kinds[pair] in HEALABLE}
    after = {pair: healed(levels, direction) for pair, levels in before.items()}

    dry = await one_worker.run(direction=direction, specialization=name)
    assert await found_issues(engine) == await listed_issues(engine, name) == drift
    assert (await progress(engine), await licenses(engine)) == (progress_levels, license_levels)
    counts = dict.fromkeys(COUNTS, 0) | Counter(kind for kind in drift.values() if kind in HEALABLE)
    counts |= {"scanned": len(pairs), "matching": len(pairs) - len(drift), "needs_decision": len(drift) - len(after)}
    counts["lowered"] = sum(after[pair] < max(level or 0 for level in levels) for pair, levels in before.items())
    assert (dry["status"], dry["counts"]) == ("completed", counts)

    real = await one_worker.run(direction=direction, specialization=name, dry_run=False, force=True)
    assert (await progress(engine), await licenses(engine)) == (progress_levels | after, license_levels | after)
    assert (real["status"], real["counts"]) == ("completed", counts | {"healed": len(after)})
    assert await listed_issues(engine, name) == {pair: drift[pair] for pair in drift.keys() - after.keys()}


async def test_the_issues_of_a_run_are_looked_up_one_by_one(engine: AsyncEngine) -> None:
    """In a join of all, each pair was compared with every issue, with the plans of a heal's transaction."""
    kept, run_id = 3_000, uuid.uuid4()
    values = {
        "id": run_id,
        "users": list(range(1, 501)),
        "specializations": ["PLAYER"] * 500,
        "status": "healed",
        "detail": "",
    }
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE levelsync.drift_issues DISABLE TRIGGER ALL"))
        await conn.execute(
            text("""
            INSERT INTO levelsync.drift_issues (run_id, user_id, specialization, kind, status, detail)
            SELECT :id, g, 'PLAYER', 'mismatched', 'confirmed', '' FROM generate_series(1, :kept) g
            """),
            {"id": run_id, "kept": kept},
        )
        await conn.execute(text("SELECT levelsync.settle_plans_v1()"))
        explained = text(f"EXPLAIN (ANALYZE, TIMING off, FORMAT JSON) {SET_ISSUES.text}")
        found = (await conn.execute(explained, values)).scalar_one()
        assert _rows_compared(found[0]["Plan"]) < 5 * 500
        changed = await conn.execute(text("SELECT count(*) FROM levelsync.drift_issues WHERE status = 'healed'"))
        assert changed.scalar_one() == 500


def _rows_compared(node: dict[str, Any]) -> int:
    """Return the most rows of any node of a plan, over all of its loops."""
    here: int = node["Actual Rows"] * node["Actual Loops"]
    return max([here, *(_rows_compared(child) for child in node.get("Plans", ()))])


async def test_a_pair_that_changes_before_its_heal_is_skipped(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """Law 6: the heal reads the pair again under the lock."""
    await fill(engine, {(1, "PLAYER"): 4, (2, "PLAYER"): 4}, {(1, "PLAYER"): 3, (2, "PLAYER"): 3})
    run_id = await one_worker.request(dry_run=False)
    await until_step(one_worker, run_id, "heal")
    await execute(engine, "UPDATE user_licenses SET current_level = 6 WHERE user_id = 1")
    report = await one_worker.finish(run_id)
    assert report["counts"]["healed"] == report["counts"]["changed_meanwhile"] == 1
    assert await licenses(engine) == {(1, "PLAYER"): 6, (2, "PLAYER"): 4}
    # The gauges and the page do not count it as drift either.
    assert await read(engine, "SELECT counts -> 'left_by' FROM levelsync.complete_scans") == [([],)]


async def test_what_a_cancelled_run_has_healed_is_reported(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """The batch had begun, and its heal stays."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 3})
    run_id = await one_worker.request(dry_run=False)
    await until_step(one_worker, run_id, "heal")
    (message,) = await one_worker.messages()
    async with engine.begin() as application:
        await application.execute(text("SELECT FROM user_licenses FOR UPDATE"))
        worker = asyncio.create_task(one_worker.chunks.work(message))
        await somebody_waits(engine)
        async with engine.begin() as conn:
            assert await cancel_run(conn, run_id)
    await worker
    assert await licenses(engine) == {(1, "PLAYER"): 4}
    report = await one_worker.report(run_id)
    assert (report["status"], report["counts"]["healed"]) == ("cancelled", 1)


_LEVEL_5_OF_USER_7 = "NEW.user_id = 7 AND NEW.current_level = 5"


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        pytest.param(
            "violates check constraint",
            ("ALTER TABLE user_licenses ADD CHECK (user_id <> 7 OR current_level < 5)",),
            id="at once",
        ),
        pytest.param(
            "not seven",
            trigger_sql("AFTER INSERT OR UPDATE", "RAISE 'not seven';", _LEVEL_5_OF_USER_7, at_commit=True),
            id="at the commit",
        ),
        pytest.param("trigger", trigger_sql("BEFORE INSERT", "RETURN NULL;", _LEVEL_5_OF_USER_7), id="without a word"),
        pytest.param("one_only", ("CREATE UNIQUE INDEX one_only ON user_licenses (user_id)",), id="by a unique index"),
    ],
)
async def test_one_pair_that_the_database_refuses_stops_no_other(
    engine: AsyncEngine, one_worker: OneWorker, said: str, refusal: tuple[str, ...]
) -> None:
    """Even at the commit, where no pair can be told from another: otherwise the range would be retried for ever."""
    await fill(engine, {(user, "PLAYER"): 5 for user in range(1, 21)} | {(7, "COACH"): 3}, {(1, "PLAYER"): 4})
    await execute(engine, *refusal)
    report = await one_worker.run(dry_run=False, force=True)
    counts = report["counts"]
    assert (report["status"], counts["healed"], counts["failed"]) == ("completed", 20, 1)
    (row,) = await read(engine, "SELECT user_id, detail FROM levelsync.drift_issues WHERE status = 'failed'")
    assert (row.user_id, said in row.detail) == (7, True), row.detail


async def test_past_the_limit_a_forced_run_heals_everything_and_keeps_samples(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emptied table does not become one issue row for each pair."""
    monkeypatch.setattr(runs, "SAMPLES", 5)
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 10)
    small = at_once.model_copy(update={"reconcile_breaker_pairs": 10})
    await fill(engine, {(user, name): 3 for user in range(1, 101) for name in MAXIMUM}, {})
    report = await OneWorker(engine, small).run(dry_run=False, force=True)
    assert report["counts"]["healed"] == report["counts"]["missing_license"] == 300
    assert report["would_stop"]
    assert len(await licenses(engine)) == 300
    ((kept,),) = await read(engine, "SELECT count(*) FROM levelsync.drift_issues")
    assert 15 <= kept <= 30


async def test_two_runs_at_once_heal_each_pair_once(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await drifted(engine, 40)
    first, second = [await one_worker.request(direction="highest", dry_run=False) for _ in range(2)]
    await until_step(one_worker, first, "heal")
    await until_step(one_worker, second, "heal")
    reports = [await one_worker.finish(run_id) for run_id in (first, second)]
    assert sum(report["counts"]["healed"] for report in reports) == 40
    assert sum(report["counts"]["changed_meanwhile"] for report in reports) == 40
    assert len(await history(engine)) == 40
