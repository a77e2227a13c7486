"""Clocks that differ, and clocks that are set while a run waits (law 5)."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Received, ReconcileChunk, ReconcileRequested
from service.reconcile.steps import take_one
from service.reconcile.work import decode, open_runs
from service.settings import Settings
from tests.support.runs import OneWorker, until_step
from tests.support.tables import execute, fill, read
from tests.support.waiting import eventually

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_a_chunk_of_a_service_whose_clock_is_ahead_is_worked_on() -> None:
    """The broker stamps records with its own clock (LogAppendTime), and nobody else writes to the topic."""
    event = ReconcileChunk(run_id=uuid4(), phase="scan", chunk=0, time=NOW + timedelta(minutes=6))
    topic, key, value, headers, *_ = event.to_kafka()
    stamped = int(NOW.timestamp() * 1000)
    record = ConsumerRecord(topic, 0, 0, stamped, 1, key, value, None, 0, 0, tuple(headers))
    decoded = decode([record])
    assert (len(decoded.received), decoded.letters) == (1, [])


@pytest.mark.parametrize("by", [pytest.param("-", id="forward"), pytest.param("+", id="back")])
async def test_a_clock_that_is_set_changes_no_grace_time(engine: AsyncEngine, settings: Settings, by: str) -> None:
    """PostgreSQL's clock jumps an hour, but the worker's clock counts the grace time. The run ends, and not early."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 3})
    one_worker = OneWorker(engine, settings.model_copy(update={"reconcile_grace": timedelta(seconds=0.5)}))
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "grace")
    began = time.monotonic()
    moved = f"due_at = due_at {by} interval '1 hour', give_up_at = give_up_at {by} interval '1 hour'"
    await execute(engine, f"UPDATE levelsync.reconcile_runs SET {moved}")  # the effect of a changed clock

    async def grace_is_over() -> bool:
        await take_one(engine, one_worker.steps)
        return await read(engine, "SELECT step FROM levelsync.reconcile_runs") != [("grace",)]

    await eventually(grace_is_over)
    assert time.monotonic() - began >= 0.5
    assert (await one_worker.finish(run_id))["counts"]["mismatched"] == 1


async def test_a_range_that_was_sent_in_the_future_is_sent_again(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """The clock was set back, and the message was lost."""
    await fill(engine, {(1, "PLAYER"): 4}, {(1, "PLAYER"): 4})
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "scan")
    await one_worker.messages()  # lost
    await execute(
        engine,
        "UPDATE levelsync.reconcile_ranges SET sent_at = sent_at + interval '1 hour'",
        "UPDATE levelsync.reconcile_runs SET wait_seconds = 0, due_at = due_at + '1 second'",
    )
    assert (await one_worker.finish(run_id))["counts"]["scanned"] == 1


async def test_a_request_older_than_the_kept_runs_is_expired(engine: AsyncEngine, one_worker: OneWorker) -> None:
    """The topic may keep a request longer than its run, so that nothing is healed again."""
    await fill(engine, {(1, "PLAYER"): 3}, {(1, "PLAYER"): 5})
    event = ReconcileRequested(direction="progress_to_license", dry_run=False, time=NOW)
    for days, expected in ((91, "expired"), (89, "planning")):
        asked = datetime.now(UTC) - timedelta(days=days)
        run_id = uuid4()
        async with engine.begin() as conn:
            await open_runs(conn, [(0, Received(event, str(run_id), "/test", asked))])
        assert (await one_worker.report(run_id))["status"] == expected
    await one_worker.messages()
    assert [report["status"] for report in one_worker.completed] == ["expired"]
