"""The phase of a run and its time left, which never grows within a phase."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.reconcile import runs, steps
from service.reconcile.runs import Pace
from service.reconcile.values import Step
from service.settings import Settings
from tests.support.runs import OneWorker, until_step
from tests.support.tables import execute, fill


@pytest.fixture
async def drifted(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> AsyncEngine:
    """Ten users whose license is one level too low, in five ranges, of which the first gives an estimate."""
    monkeypatch.setattr(steps, "ROWS_A_RANGE", 1)
    monkeypatch.setattr(runs, "ESTIMATE_AFTER", 0.0)
    users = range(1, 11)
    await fill(engine, {(user, "PLAYER"): 4 for user in users}, {(user, "PLAYER"): 3 for user in users})
    return engine


async def age_step(engine: AsyncEngine, seconds: float) -> None:
    await execute(engine, f"UPDATE levelsync.reconcile_runs SET step_began_at = step_began_at - interval '{seconds} s'")


async def test_a_run_names_each_of_its_phases(drifted: AsyncEngine, settings: Settings) -> None:
    one_worker = OneWorker(drifted, settings.model_copy(update={"reconcile_grace": timedelta(seconds=0.2)}))
    run_id = await one_worker.request(direction="highest", dry_run=False)
    named = []
    for step in ("plan", "settle", "scan", "grace", "catch_up", "confirm", "heal", "done"):
        await until_step(one_worker, run_id, step)
        named.append((await one_worker.report(run_id))["progress"]["phase"])
    waiting = "waiting_for_the_appliers"
    assert named == ["planning", waiting, "scanning", "grace", waiting, "confirming", "healing", None]


async def test_the_grace_time_counts_down(drifted: AsyncEngine, settings: Settings) -> None:
    one_worker = OneWorker(drifted, settings.model_copy(update={"reconcile_grace": timedelta(seconds=60)}))
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "grace")
    seen = [await left(one_worker, run_id)]
    await age_step(drifted, 20)
    seen.append(await left(one_worker, run_id))
    await age_step(drifted, 50)
    failed_step = "UPDATE levelsync.reconcile_runs SET wait_seconds = 2, due_at = now() + '2 seconds'"
    await execute(drifted, failed_step)
    seen.append(await left(one_worker, run_id))
    assert seen == [pytest.approx(60, abs=5), pytest.approx(40, abs=5), 0]


@pytest.mark.parametrize("step", ["scan", "confirm", "heal"])
async def test_time_left_of_a_phase_never_grows(drifted: AsyncEngine, one_worker: OneWorker, step: str) -> None:
    """It comes from the present phase: one range takes ten seconds, the next a minute, and the others no time."""
    run_id = await one_worker.request(direction="highest", dry_run=False)
    await until_step(one_worker, run_id, step)
    messages = await one_worker.messages()
    assert [message.phase for message in messages] == [step] * 5
    seen, rates = [await left(one_worker, run_id)], []
    for message, seconds in zip(messages[:4], (10, 60, 0, 0), strict=True):
        await age_step(drifted, seconds)
        await one_worker.chunks.work(message)
        report = await one_worker.report(run_id)
        seen.append(report["progress"]["seconds_left"])
        rates.append(report["progress"]["pairs_per_second"])
    nearly = [pytest.approx(left, abs=4) for left in (40, 40, 40, 17.5)]
    assert seen == [None, *nearly]
    assert rates == [pytest.approx(rate, abs=0.11) for rate in (0.2, 0.1, 0.1, 0.1)]


async def left(one_worker: OneWorker, run_id: Any) -> float | None:
    seconds: float | None = (await one_worker.report(run_id))["progress"]["seconds_left"]
    return seconds


@pytest.mark.parametrize(
    ("known", "estimate"),
    [
        (Pace(Step.SCAN, seconds=0.5, done=1, total=100), None),
        (Pace(Step.SCAN, seconds=30, done=0, total=100), None),
        (Pace(Step.SCAN, seconds=30, done=25, total=100), 90),
        (Pace(Step.SETTLE, seconds=30, done=25, total=100), None),
    ],
)
def test_time_left_is_estimated_from_work_that_is_done(known: Pace, estimate: float | None) -> None:
    """Not from the first moments, and not in a step without work."""
    assert known.estimate() == estimate
