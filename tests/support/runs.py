"""Reconcile runs in one process, message by message, with the outbox instead of Kafka.

The steps, the ranges and the SQL are the service's own. Only the way of a message through Kafka is missing, so that a
test can deliver one twice, late, or to a worker that dies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

from hypothesis import HealthCheck, settings
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Received, ReconcileChunk, ReconcileRequested, read
from service.outbox.put import put
from service.reconcile.chunks import Chunks
from service.reconcile.confirm import Ends
from service.reconcile.runs import read_run, report_of
from service.reconcile.steps import Steps, take_one
from service.reconcile.values import COUNTS, RunReport
from service.reconcile.work import open_runs
from service.settings import Settings
from service.sync.issues import stream_issues
from tests.support import tables
from tests.support.model import Pair
from tests.support.records import MAXIMUM
from tests.support.waiting import eventually


@dataclass
class NoTopics:
    """Topics that were never used, so that everything is applied."""

    ends: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    topic_ids: dict[str, str] = field(default_factory=dict)

    async def read(self) -> Ends:
        return Ends("test", self.starts, self.ends, self.topic_ids)


class OneWorker:
    """One worker that does everything, when it is called."""

    def __init__(self, engine: AsyncEngine, settings: Settings, topics: NoTopics | None = None) -> None:
        self.engine = engine
        self.topics = topics or NoTopics()
        self.steps = Steps(settings, self.topics)
        self.chunks = Chunks(engine, settings, self.steps)
        self.completed: list[dict[str, Any]] = []

    async def request(self, **data: Any) -> UUID:
        """Request a run, as a record of `sync.reconcile-requested` does."""
        run_id = data.pop("id", None) or uuid4()
        event = ReconcileRequested(id=str(run_id), **data)
        async with self.engine.begin() as conn:
            letters = await open_runs(conn, [(0, Received(event, event.id, event.source, event.time))])
        assert not letters, letters
        return UUID(str(run_id))

    async def messages(self) -> list[ReconcileChunk]:
        """Take the rows of the outbox; returns the messages of ranges. Reports are added to `completed`."""
        async with self.engine.begin() as conn:
            rows = (await conn.execute(text("DELETE FROM levelsync.outbox RETURNING *"))).all()
        found = []
        for row in sorted(rows, key=lambda row: row.id):
            headers = [(name, value.encode()) for name, value in row.headers]
            received = read(row.topic, row.value, headers, int(row.created_at.timestamp() * 1000) + 60_000)
            if isinstance(received.event, ReconcileChunk):
                found.append(received.event)
            elif isinstance(received.event, ReconcileRequested):
                async with self.engine.begin() as conn:
                    await open_runs(conn, [(0, received)])
            elif row.topic == "sync.reconcile-completed":
                self.completed.append(json.loads(row.value))
        return found

    async def step(self) -> bool:
        """Run every due step and every message; returns False when there was none."""
        stepped = await take_one(self.engine, self.steps)
        messages = await self.messages()
        for message in messages:
            await self.chunks.work(message)
        return stepped or bool(messages)

    async def finish(self, run_id: UUID, timeout: float = 60) -> dict[str, Any]:  # noqa: ASYNC109 - a test's own bound
        """Work until the run has ended; returns its report."""

        async def ended() -> bool:
            while await self.step():
                pass
            return (await self.report(run_id))["finished_at"] is not None

        await eventually(ended, timeout)
        await self.messages()
        return await self.report(run_id)

    async def report(self, run_id: UUID) -> dict[str, Any]:
        """Return the run as every command shows it."""
        return (await self.read(run_id)).as_dict()

    async def read(self, run_id: UUID) -> RunReport:
        """Return the run as the service reads it."""
        async with self.engine.connect() as conn:
            run = await read_run(conn, run_id)
            assert run is not None
            return await report_of(conn, run)

    async def run(self, **data: Any) -> dict[str, Any]:
        """Request a run and finish it; returns its report."""
        return await self.finish(await self.request(**data))


NO_RUN = UUID(int=1)
_NOON = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
_ENDED = RunReport(NO_RUN, "completed", True, "highest", None, None, None, _NOON, _NOON)  # noqa: FBT003 - a dry run


def ended(counts: dict[str, int], **changes: Any) -> RunReport:
    """Return the report of a dry run that has ended, with these counts."""
    return replace(_ENDED, counts=dict.fromkeys(COUNTS, 0) | counts, **changes)


@asynccontextmanager
async def working(one_worker: OneWorker) -> AsyncIterator[None]:
    """Run the worker beside the block."""

    async def work() -> None:
        while True:
            if not await one_worker.step():
                await asyncio.sleep(0.02)

    task = asyncio.create_task(work())
    yield
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task


PAIRS = [(user, name) for user in range(1, 6) for name in MAXIMUM]
SCANS = settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def naive_kind(pair: Pair, progress: tables.Levels, licenses: tables.Levels) -> str:
    """Return the kind of one pair's drift, as a person would decide it."""
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


async def found_issues(engine: AsyncEngine) -> dict[Pair, str]:
    """Return the issues of the last run."""
    rows = await tables.read(engine, "SELECT user_id, specialization, kind FROM levelsync.drift_issues")
    return {(row.user_id, row.specialization): row.kind for row in rows}


async def listed_issues(engine: AsyncEngine, specialization: str | None = None) -> dict[Pair, str]:
    """Return the list of issues as it is now. It contains each row once."""
    async with engine.connect() as conn:
        found = [((i.user_id, i.specialization), i.issue_type) async for i in stream_issues(conn, specialization)]
    assert len(dict(found)) == len(found)
    return dict(found)


USERS = range(1, 101)


async def drifted(engine: AsyncEngine, number: int) -> None:
    """Create a hundred users, the first `number` of them with drift."""
    progress = {(user, "PLAYER"): 5 for user in USERS}
    await tables.fill(engine, progress, {pair: 4 if pair[0] <= number else 5 for pair in progress})


async def until_step(one_worker: OneWorker, run_id: object, step: str) -> None:
    """Work until the run waits for this step."""
    for _ in range(200):
        query = "SELECT step FROM levelsync.reconcile_runs WHERE id = :id"
        if (await tables.read(one_worker.engine, query, id=run_id))[0][0] == step:
            return
        if not await take_one(one_worker.engine, one_worker.steps):  # messages only when no step is due
            await one_worker.step()
    raise AssertionError(f"the run never came to {step}")


DRIFT = ("mismatched", "missing_license", "missing_progress")


async def reconcile(engine: AsyncEngine, **request: Any) -> dict[str, int]:
    """Request a run through Kafka and wait for its end; returns its counts."""
    event = ReconcileRequested(**request)
    async with engine.begin() as conn:
        await put(conn, [event])

    report: dict[str, Any] = {}

    async def ended() -> bool:
        async with engine.connect() as conn:
            run = await read_run(conn, UUID(event.id))
            if run is not None:
                report.update((await report_of(conn, run)).as_dict())
        return bool(report.get("finished_at"))

    await eventually(ended, timeout=60)
    counts: dict[str, int] = report["counts"]
    return counts
