"""Runs a reconcile in one process, message by message: what Kafka carries is taken from the outbox by hand.

The steps, the ranges and the SQL are the service's own; what is left out is only the way of a message through Kafka,
so that a test can deliver one twice, late, or to a worker that dies.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Received, ReconcileChunk, ReconcileRequested, read
from service.reconcile.caught_up import Ends
from service.reconcile.chunks import Chunks
from service.reconcile.due import take_one
from service.reconcile.read import read_run, report_of
from service.reconcile.requests import open_runs
from service.reconcile.steps import Steps
from service.settings import Settings
from tests.infrastructure.waiting import eventually


@dataclass
class NoTopics:
    """Topics that were never used: everything is applied."""

    ends: dict[str, int] = field(default_factory=dict)
    starts: dict[str, int] = field(default_factory=dict)
    topic_ids: dict[str, str] = field(default_factory=dict)

    async def read(self) -> Ends:
        """What Kafka would say."""
        return Ends("test", self.starts, self.ends, self.topic_ids)


class Conductor:
    """One worker that does everything, as fast as it is asked to."""

    def __init__(self, engine: AsyncEngine, settings: Settings, topics: NoTopics | None = None) -> None:
        self.engine = engine
        self.topics = topics or NoTopics()
        self.steps = Steps(settings, self.topics)
        self.chunks = Chunks(engine, settings, self.steps)
        self.completed: list[dict[str, Any]] = []

    async def request(self, **data: Any) -> UUID:
        """Ask for a run, as a record of `sync.reconcile-requested` does."""
        run_id = data.pop("id", None) or uuid4()
        event = ReconcileRequested(id=str(run_id), **data)
        async with self.engine.begin() as conn:
            letters = await open_runs(conn, [(0, Received(event, event.id, event.source, event.time))])
        assert not letters, letters
        return UUID(str(run_id))

    async def messages(self) -> list[ReconcileChunk]:
        """Take what is in the outbox: the messages of ranges; reports are kept in `completed`."""
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
        """Take every due step and every message once; False when there was nothing to do."""
        stepped = await take_one(self.engine, self.steps)
        messages = await self.messages()
        for message in messages:
            await self.chunks.work(message)
        return stepped or bool(messages)

    async def finish(self, run_id: UUID, timeout: float = 20) -> dict[str, Any]:  # noqa: ASYNC109 - a test's own bound
        """Go on until the run has ended; its report."""

        async def ended() -> bool:
            while await self.step():
                pass
            return (await self.report(run_id))["finished_at"] is not None

        await eventually(ended, timeout)
        await self.messages()
        return await self.report(run_id)

    async def report(self, run_id: UUID) -> dict[str, Any]:
        """The run as every command shows it."""
        async with self.engine.connect() as conn:
            run = await read_run(conn, run_id)
            assert run is not None
            return await report_of(conn, run)

    async def run(self, **data: Any) -> dict[str, Any]:
        """Ask for a run and finish it."""
        return await self.finish(await self.request(**data))
