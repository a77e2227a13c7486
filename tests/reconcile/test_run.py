"""A run survives faults, runs once, and writes nothing by accident (laws 7 and 8)."""

from __future__ import annotations

from uuid import uuid4

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile import steps
from service.reconcile.runs import cancel_run
from service.settings import Settings
from tests.support.runs import OneWorker, drifted, until_step
from tests.support.tables import fill, read


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
    assert await one_worker.messages()  # and nobody works on them
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
