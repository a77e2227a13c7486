"""A run survives faults, runs once, and writes nothing by accident (laws 7 and 8)."""

from __future__ import annotations

from datetime import timedelta
from uuid import uuid4

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile import steps
from service.reconcile.runs import cancel_run
from service.settings import Settings
from tests.support.runs import OneWorker, drifted, until_step
from tests.support.tables import fill


@pytest.fixture
def at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """In ranges of ten rows."""
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 10)
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


async def test_a_request_delivered_twice_runs_once(engine: AsyncEngine, at_once: Settings) -> None:
    """The run's id is the request's."""
    await drifted(engine, 0)
    one_worker, run_id = OneWorker(engine, at_once), uuid4()
    for _ in range(2):
        await one_worker.request(id=run_id)
    await one_worker.finish(run_id)
    assert [report["run_id"] for report in one_worker.completed] == [str(run_id)]
    async with engine.connect() as conn:
        (row,) = (await conn.execute(text("SELECT * FROM levelsync.admin_actions"))).all()
    assert (row.subject, row.role, row.action, row.outcome) == ("levelsync", "event", "request_run", "done")
    assert (row.arguments["run_id"], row.arguments["dry_run"]) == (str(run_id), True)


async def test_a_range_delivered_twice_is_counted_once(engine: AsyncEngine, at_once: Settings) -> None:
    """Counts are set under the range's lock, not added."""
    await drifted(engine, 30)
    one_worker = OneWorker(engine, at_once)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    messages = await one_worker.messages()
    assert len(messages) == 10
    for message in [*messages, *reversed(messages)]:
        await one_worker.chunks.work(message)
    report = await one_worker.finish(run_id)
    assert report["counts"]["scanned"] == 100
    assert report["counts"]["mismatched"] == 30
    assert (report["progress"]["ranges_done"], report["progress"]["ranges_total"]) == (20, 20)


async def test_a_lost_message_is_sent_again(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any worker sends a range again that has not moved for a while."""
    from service.reconcile import steps  # noqa: PLC0415 - patched here

    monkeypatch.setattr(steps, "RESEND_SECONDS", 0.2)
    monkeypatch.setattr(steps, "LOOK_SECONDS", 0.1)
    await drifted(engine, 3)
    one_worker = OneWorker(engine, at_once)
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
    async with engine.connect() as conn:
        levels = await conn.execute(text("SELECT count(*) FROM user_licenses WHERE current_level = 4"))
        assert levels.scalar_one() == 10


async def test_an_emptied_table_stops_a_run_however_small(engine: AsyncEngine, at_once: Settings) -> None:
    """It suggests a bad deploy, not drift."""
    await fill(engine, {(1, "PLAYER"): 5}, {})
    report = await OneWorker(engine, at_once).run(dry_run=False)
    assert report["status"] == "stopped_by_breaker"
    assert report["counts"]["missing_license"] == 1


async def test_a_cancelled_run_ends_at_once_and_reports(engine: AsyncEngine, at_once: Settings) -> None:
    await drifted(engine, 3)
    one_worker = OneWorker(engine, at_once)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    async with engine.begin() as conn:
        assert await cancel_run(conn, run_id)
        assert not await cancel_run(conn, run_id)
    report = await one_worker.finish(run_id)
    assert report["status"] == "cancelled"
    assert [completed["status"] for completed in one_worker.completed] == ["cancelled"]


async def test_one_user_is_one_range(engine: AsyncEngine, at_once: Settings) -> None:
    await drifted(engine, 30)
    report = await OneWorker(engine, at_once).run(user_id=7)
    assert report["counts"]["scanned"] == report["counts"]["mismatched"] == 1
    assert report["user_id"] == 7


async def test_empty_tables_are_in_agreement(engine: AsyncEngine, at_once: Settings) -> None:
    await fill(engine, {}, {})
    report = await OneWorker(engine, at_once).run()
    assert (report["status"], report["counts"]["scanned"]) == ("completed", 0)
