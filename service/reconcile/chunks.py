"""A message is a range: whoever gets it does it, under the range's row, once (law 7)."""

from __future__ import annotations

from uuid import UUID

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ReconcileChunk
from events.fields import INT4_MAX
from service import metrics
from service.database.faults import Kind, read_fault
from service.reconcile import sql
from service.reconcile.confirm import confirm_range
from service.reconcile.heal import count, heal_some
from service.reconcile.issues import room_for_issues
from service.reconcile.pace import note_time_left
from service.reconcile.scan import scan_range
from service.reconcile.steps import Steps
from service.reconcile.values import Phase, Range, Suspect, run_of
from service.settings import Settings
from service.sync.rows import tables_of
from service.sync.write import MOST_PAIRS

log = structlog.get_logger(__name__)


class Chunks:
    """Works on ranges. Every call may be repeated, by anyone, at any time."""

    def __init__(self, engine: AsyncEngine, settings: Settings, steps: Steps) -> None:
        self._engine = engine
        self._settings = settings
        self._steps = steps
        self._tables = tables_of(settings)

    async def work(self, *chunks: ReconcileChunk) -> None:
        """Do what is left of each range's pass, then close the passes whose last ranges these were."""
        ranges = [(chunk.run_id, Phase[chunk.phase.upper()], chunk.chunk) for chunk in chunks]
        for run_id, phase, number in ranges:
            await self._do(run_id, phase, number)
        for run_id, phase in sorted({(run_id, phase) for run_id, phase, _ in ranges}):
            async with self._engine.begin() as conn:
                await self._steps.close_phase(conn, run_id, phase)
        self._steps.woken.set()

    async def _do(self, run_id: UUID, phase: Phase, chunk: int) -> None:
        """Do what is left of a range's pass. A fault of its own leaves it to a later message: other runs come next.

        Raises:
            Exception: PostgreSQL is away; the whole batch is tried again.
        """
        try:
            while await self._do_some(run_id, phase, chunk):
                async with self._engine.begin() as conn:  # the range's row is free: nobody waits for two rows at once
                    await note_time_left(conn, run_id)
        except Exception as error:
            fault = read_fault(error)
            if fault.kind in {Kind.PASSING, Kind.CONFLICT}:
                raise
            metrics.RETRIES.labels(Kind.INSTALLATION.value).inc()
            log.exception("a range failed, tried again later", run_id=str(run_id), chunk=chunk, error=fault.message)

    async def _do_some(self, run_id: UUID, phase: Phase, chunk: int) -> bool:
        """One transaction of a range; True while some of it is left."""
        async with self._engine.begin() as conn:
            found = (await conn.execute(sql.LOCK_RANGE, _which(run_id, phase, chunk))).one_or_none()
            if found is None or found.finished_at or found.phase != phase or found.done_phase >= phase:
                return False
            run = run_of(found)
            if phase is Phase.SCAN:
                await scan_range(conn, run, chunk, found.after_user, found.upto_user)
                return False
            part = Range(run, chunk, [Suspect(*array) for array in found.suspects], found.range_counts)
            if phase is Phase.CONFIRM:
                await confirm_range(conn, part, await room_for_issues(conn, run_id, self._settings))
                return False
            done = await heal_some(conn, part, self._tables)
        count(run, done)
        return True


def _which(run_id: UUID, phase: Phase, chunk: int) -> dict[str, object]:
    """Name a range, and how many of its suspects are read."""
    return {"id": run_id, "chunk": chunk, "most": MOST_PAIRS if phase is Phase.HEAL else INT4_MAX}
