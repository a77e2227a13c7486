"""Runs survive faults, run once, do not delay others, and write nothing by accident (laws 7 and 8)."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.reconcile import chunks, steps
from service.reconcile.chunks import scan_range
from service.reconcile.runs import cancel_run
from service.reconcile.steps import StepFailed, Steps, take_one
from service.reconcile.values import Run
from service.settings import Settings
from service.sync import ProgressLicenseSyncService as Service
from tests.support.runs import OneWorker, drifted, until_step, working
from tests.support.tables import execute, fill, licenses, of_players, read


@pytest.fixture(autouse=True)
def _ranges_of_ten_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 10)


async def test_a_request_delivered_twice_runs_once(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await drifted(engine, 0)
    run_id = uuid4()
    for _ in range(2):
        await one_worker.request(id=run_id)
    await one_worker.finish(run_id)
    assert [report["run_id"] for report in one_worker.completed] == [str(run_id)]
    (row,) = await read(engine, "SELECT * FROM levelsync.admin_actions")
    assert (row.subject, row.role, row.action, row.outcome) == ("levelsync", "event", "request_run", "done")
    assert (row.arguments["run_id"], row.arguments["dry_run"]) == (str(run_id), True)


async def test_a_range_delivered_twice_is_counted_once(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """Counts are set under the range's lock, not added."""
    await drifted(engine, 30)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    messages = await one_worker.messages()
    assert len(messages) == 10
    for message in [*messages, *reversed(messages)]:
        await one_worker.chunks.work(message)
    report = await one_worker.finish(run_id)
    assert (report["counts"]["scanned"], report["counts"]["mismatched"]) == (100, 30)
    assert (report["progress"]["ranges_done"], report["progress"]["ranges_total"]) == (20, 20)


async def test_a_lost_message_is_sent_again(
    engine: AsyncEngine, one_worker: OneWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any worker sends a range again that has not moved for a while."""
    monkeypatch.setattr(steps, "RESEND_SECONDS", 0.2)
    monkeypatch.setattr(steps, "LOOK_SECONDS", 0.1)
    await drifted(engine, 3)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    assert await one_worker.messages()  # no worker reads them
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 3


async def test_a_dry_run_writes_nothing_and_says_what_would_stop(engine: AsyncEngine, at_once: Settings) -> None:
    """It completes where the real run is stopped before its first write."""
    strict = at_once.model_copy(update={"reconcile_breaker_pairs": 9})
    await drifted(engine, 10)
    dry = await OneWorker(engine, strict).run()
    real = await OneWorker(engine, strict).run(dry_run=False)
    assert (dry["status"], dry["would_stop"]) == ("completed", True)
    assert (real["status"], real["would_stop"]) == ("stopped_by_breaker", True)
    assert dry["counts"] == real["counts"]
    assert await read(engine, "SELECT count(*) FROM user_licenses WHERE current_level = 4") == [(10,)]


async def test_an_emptied_table_stops_a_run_however_small(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """It suggests a bad deploy, not drift."""
    await fill(engine, {(1, "PLAYER"): 5}, {})
    report = await one_worker.run(dry_run=False)
    assert (report["status"], report["counts"]["missing_license"]) == ("stopped_by_breaker", 1)


async def test_a_cancelled_run_ends_at_once_and_reports(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await drifted(engine, 3)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    async with engine.begin() as conn:
        assert await cancel_run(conn, run_id)
        assert not await cancel_run(conn, run_id)
    assert (await one_worker.finish(run_id))["status"] == "cancelled"
    assert [completed["status"] for completed in one_worker.completed] == ["cancelled"]


async def test_one_user_is_one_range(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await drifted(engine, 30)
    report = await one_worker.run(user_id=7)
    assert (report["user_id"], report["counts"]["scanned"], report["counts"]["mismatched"]) == (7, 1, 1)


async def test_empty_tables_are_in_agreement(engine: AsyncEngine, one_worker: OneWorker) -> None:
    await fill(engine, {}, {})
    report = await one_worker.run()
    assert (report["status"], report["counts"]["scanned"]) == ("completed", 0)


@pytest.mark.parametrize("failing", ["step", "range"])
async def test_a_failing_run_delays_no_other_run(
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


async def hide_level_behind(engine: AsyncEngine, divisor: str) -> None:
    """Replace the progress table with a view that divides by `divisor` when a level is read."""
    await execute(engine, "ALTER TABLE specialization_progress RENAME TO progress_rows")
    columns = (
        "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = CAST('progress_rows' AS regclass) AND attnum > 0 AND attname <> 'current_level'"
    )
    ((names,),) = await read(engine, columns)
    level = f"current_level + 0 / ({divisor}) AS current_level"
    await execute(engine, f"CREATE VIEW specialization_progress AS SELECT {names}, {level} FROM progress_rows")


async def test_unreadable_users_beyond_the_limit_are_counted_not_their_ids(
    engine: AsyncEngine, one_worker: OneWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After three unreadable users, the rest of the range fails as a whole."""
    monkeypatch.setattr(chunks, "MAX_FAILURES", 3)
    await fill(engine, {(user, "PLAYER"): 4 for user in range(10, 101, 10)}, {(100, "PLAYER"): 4})
    await hide_level_behind(engine, "student_id - student_id")
    report = await one_worker.run()
    assert {name: number for name, number in report["counts"].items() if number} == {"failed": 10}


async def test_a_row_that_cannot_be_read_has_failed_and_the_run_ends(
    engine: AsyncEngine, one_worker: OneWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other users of its range are compared. A view whose row divides by zero replaces the table."""
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 50)
    await fill(engine, {(user, "PLAYER"): 4 for user in range(1, 101)}, {(user, "PLAYER"): 4 for user in range(2, 101)})
    await hide_level_behind(engine, "student_id - 37")
    report = await one_worker.run()
    found = {name: number for name, number in report["counts"].items() if number}
    assert report["status"] == "completed"
    assert found == {"scanned": 99, "matching": 98, "missing_license": 1, "failed": 1}
    assert await read(engine, "SELECT detail FROM levelsync.reconcile_runs") == [("user 37: division by zero",)]


async def test_a_bulk_sync_is_a_dry_run_by_default_and_heals_when_it_is_asked_to(
    engine: AsyncEngine, settings: Settings, one_worker: OneWorker
) -> None:
    service, before, after = Service(engine, settings), of_players(4, 3), {**of_players(5, 3), (3, "COACH"): 2}
    await fill(engine, progress=after, licenses=before)
    async with working(one_worker):
        dry = (await service.auto_sync_all()).as_dict()
        assert await licenses(engine) == before
        real = (await service.auto_sync_all("progress_to_license", dry_run=False)).as_dict()
    assert set(dry) == {"success", "dry_run", "total_issues", "issues", "more", "message", "run_id"}
    assert (dry["success"], dry["dry_run"], dry["total_issues"]) == (True, True, 2)
    actions = {issue["user_id"]: issue["recommended_action"] for issue in dry["issues"]}
    assert actions == {1: "sync_progress_to_license", 3: "create_license_from_progress"}
    assert (real["success"], real["synced_count"], real["failed_count"]) == (True, 2, 0)
    assert {issue["status"] for issue in real["results"]} == {"healed"}
    assert await licenses(engine) == after
