"""A run that fails does not delay others, and an unreadable row ends as `failed` (law 7)."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.reconcile import chunks, steps
from service.reconcile.chunks import scan_range
from service.reconcile.steps import StepFailed, Steps, take_one
from service.reconcile.values import Run
from tests.support.runs import OneWorker
from tests.support.tables import execute, fill, read


@pytest.mark.parametrize("failing", ["step", "range"])
async def test_a_part_that_always_fails_holds_up_no_other_run(
    engine: AsyncEngine, one_worker: OneWorker, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """The failing step is due first, every time. The message behind the range is another run's."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 3})
    broken = await one_worker.request()
    take = Steps.take

    async def step(self: Steps, conn: AsyncConnection, run: Run) -> None:
        if run.id == broken:
            raise RuntimeError("a step that fails")
        await take(self, conn, run)

    async def scan(conn: AsyncConnection, run: Run, *more: Any) -> int:
        if run.id == broken:
            raise RuntimeError("a range that fails")
        return await scan_range(conn, run, *more)

    if failing == "step":
        monkeypatch.setattr(Steps, "take", step)
        monkeypatch.setattr(steps, "BACKOFF", 30.0)
        with pytest.raises(StepFailed):
            await take_one(engine, one_worker.steps)
    else:
        monkeypatch.setattr(chunks, "scan_range", scan)
    report = await one_worker.run()
    assert (report["status"], report["counts"]["mismatched"]) == ("completed", 1)
    assert (await one_worker.report(broken))["finished_at"] is None


async def test_a_row_that_cannot_be_read_has_failed_and_the_run_ends(
    engine: AsyncEngine, one_worker: OneWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other users of its range are compared. A view whose row divides by zero replaces the table."""
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 50)
    await fill(engine, {(user, "PLAYER"): 4 for user in range(1, 101)}, {(user, "PLAYER"): 4 for user in range(2, 101)})
    await execute(engine, "ALTER TABLE specialization_progress RENAME TO progress_rows")
    columns = (
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = CAST('progress_rows' AS regclass) AND attnum > 0 AND attname <> 'current_level'"
    )
    ((names,),) = await read(engine, columns)
    level = "current_level + 0 / (student_id - 37) AS current_level"
    await execute(engine, f"CREATE VIEW specialization_progress AS SELECT {names}, {level} FROM progress_rows")
    report = await one_worker.run()
    found = {name: number for name, number in report["counts"].items() if number}
    assert report["status"] == "completed"
    assert found == {"scanned": 99, "matching": 98, "missing_license": 1, "failed": 1}
    assert await read(engine, "SELECT detail FROM levelsync.reconcile_runs") == [("user 37: division by zero",)]
