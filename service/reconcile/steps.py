"""Take the steps of runs when they are due, under the lock of the run's row.

plan → settle → scan → grace → catch_up → confirm → heal → done. Scan, confirm and heal are passes over the ranges. They
end when the last range is done. The other steps only wait for their time.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import ReconcileChunk
from service.faults import read_fault
from service.outbox.put import put
from service.reconcile import sql
from service.reconcile.confirm import Topics, reached, read_applied
from service.reconcile.runs import breaker_limit, finish, finish_unconfirmed, store_time_left
from service.reconcile.values import Phase, Run, Step, add_up, healable, run_of
from service.settings import Settings
from service.stream.background import ReportHealthy, wait_for
from service.stream.positions import differ
from service.telemetry.health import Health

ROWS_A_RANGE = 40_000
"""Rows of either table in one range. They take 20 ms, and at worst give some megabytes of suspects."""
RANGES_A_STEP = 100
"""Ranges planned in one transaction."""


async def plan_next_ranges(conn: AsyncConnection, run: Run) -> bool:
    """Plan the next ranges. Return True when the last user is in one. The caller has locked the run's row."""
    if run.user_id is not None:
        await _add(conn, run, [(0, run.user_id - 1, run.user_id)])
        return True
    chunk, upto = (await conn.execute(sql.PLANNED_UPTO, {"id": run.id})).one()
    number, after = (0 if chunk is None else chunk + 1), (0 if upto is None else upto)
    last = (await conn.execute(sql.LAST_USER)).scalar_one() or 0
    ranges: list[tuple[int, int, int]] = []
    while after < last and len(ranges) < RANGES_A_STEP:
        boundary = (await conn.execute(sql.NEXT_BOUNDARY, {"after": after, "rows": ROWS_A_RANGE})).scalar_one()
        end = last if boundary is None else min(boundary, last)
        ranges.append((number + len(ranges), after, end))
        after = end
    await _add(conn, run, ranges)
    return after >= last


async def _add(conn: AsyncConnection, run: Run, ranges: list[tuple[int, int, int]]) -> None:
    if ranges:
        chunks, afters, uptos = (list(column) for column in zip(*ranges, strict=True))
        await conn.execute(sql.ADD_RANGES, {"id": run.id, "chunks": chunks, "afters": afters, "uptos": uptos})


POLL_SECONDS = 0.5
"""Seconds between checks whether the appliers have caught up."""
CATCH_UP_SECONDS = 60.0
"""Seconds to wait for the appliers before the scan, and again before the confirmation."""
RESEND_SECONDS = 60.0
"""Seconds after which the message of an open range is sent again."""
LOOK_SECONDS = 5.0
"""Seconds between checks for such ranges."""


class FirstSeen:
    """Measures how long this process has seen things, on its monotonic clock. No step of a clock changes that."""

    def __init__(self) -> None:
        self._since: dict[Hashable, float] = {}

    def age(self, what: Hashable) -> float:
        """Return the seconds since the first call with `what`."""
        now = time.monotonic()
        return now - self._since.setdefault(what, now)

    def keep(self, present: Collection[Hashable]) -> None:
        """Remove everything that is not in `present`."""
        self._since = {what: since for what, since in self._since.items() if what in present}


class Steps:
    """Takes the steps of runs. `topics` reads the ends of the topics of events."""

    def __init__(self, settings: Settings, topics: Topics) -> None:
        self._settings = settings
        self._topics = topics
        self.woken = asyncio.Event()
        """Set when a step may have become due, to end the wait before the next look."""
        self._steps_seen = FirstSeen()
        self._goals_seen = FirstSeen()

    def due(self, waiting: Sequence[Any]) -> list[Any]:
        """Return the rows of runs whose step is due, because this process has seen it for as long as it has to wait."""
        self._steps_seen.keep({(row.id, row.due_at) for row in waiting})
        return [row for row in waiting if self._steps_seen.age((row.id, row.due_at)) >= self._wait(row)]

    def _wait(self, row: Any) -> float:
        """Return the seconds that a step has to wait: in the step `grace`, at least the grace time of the settings."""
        grace = self._settings.reconcile_grace.total_seconds() if row.step == Step.GRACE else 0.0
        return max(float(row.wait_seconds), grace)

    async def take(self, conn: AsyncConnection, run: Run) -> None:
        """Take the step that is due. The caller has locked the run's row."""
        match run.step:
            case Step.PLAN:
                await self._plan(conn, run)
            case Step.SETTLE:
                await self._settle(conn, run)
            case Step.SCAN | Step.CONFIRM | Step.HEAL:
                await self._resend_and_close(conn, run, Phase[run.step.name])
            case Step.GRACE:
                await self._grace(conn, run)
            case Step.CATCH_UP:
                await self._catch_up(conn, run)
            case Step.DONE:
                raise AssertionError  # the caller passes only runs that have not ended

    async def close_phase(self, conn: AsyncConnection, run_id: UUID, phase: Phase) -> None:
        """End a pass if it has no open range. Lock the run's row first, and count in a later statement (law 7).

        The first count, without a lock, avoids the lock for all ranges but the last. It comes after the commit of the
        range, so the worker that commits last finds no open range.
        """
        if (await conn.execute(sql.OPEN_RANGES, {"id": run_id, "phase": phase})).first():
            await store_time_left(conn, run_id)
            return
        row = (await conn.execute(sql.LOCK_RUN, {"id": run_id})).one_or_none()
        if row is None or row.finished_at is not None or row.phase != phase:
            return
        run = run_of(row)
        if not (await conn.execute(sql.OPEN_RANGES, {"id": run.id, "phase": phase})).first():
            await self._end_pass(conn, run, phase)

    # --- steps that wait for a time

    async def _plan(self, conn: AsyncConnection, run: Run) -> None:
        planned = await plan_next_ranges(conn, run)
        if planned:
            await self._set_goal(conn, run)
        await self._set_step(conn, run, Step.SETTLE if planned else Step.PLAN, after=0)

    async def _settle(self, conn: AsyncConnection, run: Run) -> None:
        """Wait for the appliers for a bounded time, so that a backlog does not become suspects."""
        if await self._caught_up(conn, run) or self._timed_out(run):
            await self._begin_pass(conn, run, Phase.SCAN)
        else:
            await self._set_step(conn, run, Step.SETTLE, after=POLL_SECONDS)

    async def _grace(self, conn: AsyncConnection, run: Run) -> None:
        """Read the end offsets after the grace time has passed (law 5)."""
        await self._set_goal(conn, run)
        await self._set_step(conn, run, Step.CATCH_UP, after=0)

    async def _catch_up(self, conn: AsyncConnection, run: Run) -> None:
        if await self._caught_up(conn, run):
            await self._begin_pass(conn, run, Phase.CONFIRM)
        elif self._timed_out(run):
            await finish_unconfirmed(conn, run, self._settings)
        else:
            await self._set_step(conn, run, Step.CATCH_UP, after=POLL_SECONDS)

    # --- passes over the ranges

    async def _end_pass(self, conn: AsyncConnection, run: Run, phase: Phase) -> None:
        match phase:
            case Phase.SCAN:
                await self._after_scan(conn, run)
            case Phase.CONFIRM:
                await self._after_confirm(conn, run)
            case Phase.HEAL:
                await finish(conn, run, "completed")

    async def _after_scan(self, conn: AsyncConnection, run: Run) -> None:
        suspects = (await conn.execute(sql.SUSPECTS, {"id": run.id})).scalar_one()
        if suspects:
            await self._set_step(conn, run, Step.GRACE, after=self._settings.reconcile_grace.total_seconds())
        else:
            await finish(conn, run, "completed")

    async def _after_confirm(self, conn: AsyncConnection, run: Run) -> None:
        """Check the breaker and the number of levels that the request allows to fall, before any write (law 8)."""
        counts = add_up((await conn.execute(sql.RANGE_COUNTS, {"id": run.id})).scalars())
        would_stop = await self._breaker(conn, counts)
        if would_stop:
            await conn.execute(sql.SET_WOULD_STOP, {"id": run.id})
        if run.dry_run:
            await finish(conn, run, "completed")
        elif would_stop and not run.force:
            await finish(conn, run, "stopped_by_breaker", "more pairs would change than the breaker allows")
        elif run.max_lowered is not None and counts["lowered"] > run.max_lowered:
            why = f"{counts['lowered']} levels would fall, and the request allows {run.max_lowered}"
            await finish(conn, run, "stopped_by_breaker", why)
        else:
            await self._begin_pass(conn, run, Phase.HEAL)

    async def _begin_pass(self, conn: AsyncConnection, run: Run, phase: Phase) -> None:
        """Send a message for every open range of a pass. A pass without open ranges ends at once."""
        chunks = list((await conn.execute(sql.OPEN_RANGES, {"id": run.id, "phase": phase})).scalars())
        await conn.execute(sql.MARK_SENT, {"id": run.id, "phase": phase})
        await self._set_step(conn, run, phase.step, after=LOOK_SECONDS, phase=phase)
        await _send(conn, run, phase, chunks)
        if not chunks:
            await self._end_pass(conn, run, phase)

    async def _resend_and_close(self, conn: AsyncConnection, run: Run, phase: Phase) -> None:
        """Send the messages of stale ranges again, and close a pass that a worker left unclosed when it died."""
        older = {"id": run.id, "phase": phase, "older": RESEND_SECONDS}
        stale = list((await conn.execute(sql.STALE_RANGES, older)).scalars())
        await _send(conn, run, phase, stale)
        await self._set_step(conn, run, phase.step, after=LOOK_SECONDS, phase=phase)
        await self.close_phase(conn, run.id, phase)

    # --- conditions and changes of steps

    async def _breaker(self, conn: AsyncConnection, counts: Mapping[str, int]) -> bool:
        """Return whether a real run would be stopped: too many pairs, or one table is empty and the other is not."""
        changes = healable(counts)
        one_is_empty = (await conn.execute(sql.ONE_TABLE_IS_EMPTY)).scalar_one()
        return bool(changes > breaker_limit(self._settings, counts["scanned"]) or (changes and one_is_empty))

    async def _set_goal(self, conn: AsyncConnection, run: Run) -> None:
        now = await self._topics.read()
        goal = {"ends": json.dumps(dict(now.ends)), "topic_ids": json.dumps(dict(now.topic_ids))}
        await conn.execute(sql.SET_GOAL, goal | {"id": run.id, "timeout": CATCH_UP_SECONDS})

    async def _caught_up(self, conn: AsyncConnection, run: Run) -> bool:
        now = await self._topics.read()
        if any(differ(topic_id, now.topic_ids.get(topic, "")) for topic, topic_id in run.topic_ids.items()):
            await self._set_goal(conn, run)  # a topic was created again: wait for its records
            return False
        return reached(run.end_offsets or {}, now, await read_applied(conn, now))

    def _timed_out(self, run: Run) -> bool:
        return self._goals_seen.age((run.id, run.give_up_at)) >= CATCH_UP_SECONDS

    async def _set_step(
        self, conn: AsyncConnection, run: Run, step: Step, *, after: float, phase: int | None = None
    ) -> None:
        waits = {"after": after, "left": after if step is Step.GRACE else None}
        status = "planning" if step is Step.PLAN else "running"
        number = run.phase if phase is None else phase
        await conn.execute(sql.SET_STEP, {"id": run.id, "step": step, "status": status, "phase": number} | waits)


async def _send(conn: AsyncConnection, run: Run, phase: Phase, chunks: list[int]) -> None:
    await put(conn, [ReconcileChunk(run_id=run.id, phase=phase.word, chunk=chunk) for chunk in chunks])


log = structlog.get_logger(__name__)
LOOK_EVERY = 0.1
"""Seconds between looks for due steps."""
BACKOFF = 2.0
"""Seconds after a fault before the step is due again. The steps of other runs are taken in that time."""


class StepFailed(Exception):  # noqa: N818 - its cause is the error
    """A step of a run failed. It is due again later, after the steps of other runs."""


async def take_due_steps(engine: AsyncEngine, steps: Steps, health: Health, report_healthy: ReportHealthy) -> None:
    """Take due steps for as long as the service runs. Report a step that fails, and take it again later.

    `report_healthy` is called after each look at the runs that succeeds.

    Raises:
        sqlalchemy.exc.DBAPIError: PostgreSQL does not answer.
    """
    while True:
        steps.woken.clear()  # before the look, so that a step which becomes due during it wakes the loop
        try:
            taken = await take_one(engine, steps)
        except StepFailed as failed:
            _report(failed, steps, health)
        else:
            health.clear("reconcile", steps)
            report_healthy()
            if not taken:
                await wait_for(steps.woken, LOOK_EVERY)


async def take_one(engine: AsyncEngine, steps: Steps) -> bool:
    """Take one due step, under the lock of its run's row. Return False when no step is due."""
    async with engine.begin() as conn:
        run = await _lock_due(conn, steps)
        if run is None:
            return False
        try:
            async with conn.begin_nested():
                await steps.take(conn, run)
        except Exception as error:
            await conn.execute(sql.PUT_OFF, {"id": run.id, "after": BACKOFF})
            await conn.commit()
            raise StepFailed from error
        return True


async def _lock_due(conn: AsyncConnection, steps: Steps) -> Run | None:
    """Lock the run whose step has been due for longest and is not being taken by another process."""
    for waiting in steps.due((await conn.execute(sql.UNFINISHED)).all()):
        row = (await conn.execute(sql.LOCK_STEP, {"id": waiting.id, "due_at": waiting.due_at})).one_or_none()
        if row is not None:
            return run_of(row)
    return None


def _report(failed: StepFailed, steps: Steps, health: Health) -> None:
    cause = failed.__cause__ or failed
    message = read_fault(cause).message
    health.report("reconcile", steps, message)
    log.warning("a step of a run failed and is retried", error=message, kind=type(cause).__name__)
