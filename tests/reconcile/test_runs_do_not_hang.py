"""A run that fails does not delay others, and an unreadable row ends as `failed` (law 7)."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.reconcile import chunks, steps
from service.reconcile.chunks import scan_range
from service.reconcile.steps import StepFailed, Steps, take_one
from service.reconcile.values import Run
from service.settings import Settings
from tests.support.runs import OneWorker
from tests.support.tables import fill


@pytest.fixture
def at_once(settings: Settings) -> Settings:
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


async def test_a_step_that_always_fails_holds_up_no_other_run(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failing step is the first that is due, every time."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 3})
    one_worker = OneWorker(engine, at_once)
    broken = await one_worker.request()
    take = Steps.take

    async def fails(self: Steps, conn: AsyncConnection, run: Run) -> None:
        if run.id == broken:
            raise RuntimeError("a step that fails")
        await take(self, conn, run)

    monkeypatch.setattr(Steps, "take", fails)
    monkeypatch.setattr(steps, "BACKOFF", 30.0)
    with pytest.raises(StepFailed):
        await take_one(engine, one_worker.steps)
    report = await one_worker.run()
    assert (report["status"], report["counts"]["mismatched"]) == ("completed", 1)
    assert (await one_worker.report(broken))["finished_at"] is None


async def test_a_range_that_always_fails_holds_up_no_other_run(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message behind it in the same partition belongs to another run."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 3})
    one_worker = OneWorker(engine, at_once)
    broken = await one_worker.request()

    async def fails(conn: AsyncConnection, run: Run, *more: Any) -> int:
        if run.id == broken:
            raise RuntimeError("a range that fails")
        return await scan_range(conn, run, *more)

    monkeypatch.setattr(chunks, "scan_range", fails)
    report = await one_worker.run()
    assert (report["status"], report["counts"]["mismatched"]) == ("completed", 1)
    assert (await one_worker.report(broken))["finished_at"] is None


async def test_a_row_that_cannot_be_read_has_failed_and_the_run_ends(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other users of its range are compared."""
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 50)
    await fill(engine, {(user, "PLAYER"): 4 for user in range(1, 101)}, {(user, "PLAYER"): 4 for user in range(2, 101)})
    await cannot_read(engine, 37)
    report = await OneWorker(engine, at_once).run()
    assert report["status"] == "completed"
    assert {name: number for name, number in report["counts"].items() if number} == {
        "scanned": 99,
        "matching": 98,
        "missing_license": 1,
        "failed": 1,
    }
    async with engine.connect() as conn:
        detail = (await conn.execute(text("SELECT detail FROM levelsync.reconcile_runs"))).scalar_one()
    assert detail == "user 37: division by zero"


async def cannot_read(engine: AsyncEngine, user: int) -> None:
    """Replace the table with a view whose row of that user divides by zero."""
    async with engine.begin() as conn:
        await conn.execute(text("ALTER TABLE specialization_progress RENAME TO progress_rows"))
        names = (
            await conn.execute(
                text(
                    "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
                    " WHERE attrelid = CAST('progress_rows' AS regclass) AND attnum > 0 AND attname <> 'current_level'"
                )
            )
        ).scalar_one()
        level = f"current_level + 0 / (student_id - {user}) AS current_level"
        await conn.execute(text(f"CREATE VIEW specialization_progress AS SELECT {names}, {level} FROM progress_rows"))
