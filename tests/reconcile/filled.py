"""Tables that differ, and what a run finds in them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, settings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ReconcileRequested
from service.outbox.put import put
from service.reconcile.due import take_one
from service.reconcile.read import read_run, report_of
from tests.infrastructure.waiting import eventually
from tests.laws.records import MAXIMUM
from tests.reconcile.conductor import Conductor
from tests.sync.tables import fill

Progress = Mapping[tuple[int, str], int | None]
Licenses = Mapping[tuple[int, str], int]
PAIRS = [(user, name) for user in range(1, 6) for name in MAXIMUM]
SCANS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


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


USERS = range(1, 101)


async def drifted(engine: AsyncEngine, number: int) -> None:
    """A hundred users, the first of them in disagreement."""
    progress = {(user, "PLAYER"): 5 for user in USERS}
    await fill(engine, progress, {pair: 4 if pair[0] <= number else 5 for pair in progress})


async def until_step(conductor: Conductor, run_id: object, step: str) -> None:
    """Go on until the run waits for this step."""
    for _ in range(200):
        async with conductor.engine.connect() as conn:
            row = await conn.execute(text("SELECT step FROM levelsync.reconcile_runs WHERE id = :id"), {"id": run_id})
            if row.scalar_one() == step:
                return
        if not await take_one(conductor.engine, conductor.steps):  # messages only when no step is due
            await conductor.step()
    raise AssertionError(f"the run never came to {step}")


DRIFT = ("mismatched", "missing_license", "missing_progress")


async def reconcile(engine: AsyncEngine, **request: Any) -> dict[str, int]:
    """One run through Kafka, to its end; its counts."""
    event = ReconcileRequested(**request)
    async with engine.begin() as conn:
        await put(conn, [event])

    report: dict[str, Any] = {}

    async def ended() -> bool:
        async with engine.connect() as conn:
            run = await read_run(conn, UUID(event.id))
            if run is not None:
                report.update(await report_of(conn, run))
        return bool(report.get("finished_at"))

    await eventually(ended, timeout=60)
    counts: dict[str, int] = report["counts"]
    return counts
