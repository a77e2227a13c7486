"""One message, one range: whoever gets it does it, under the range's row, once (law 7)."""

from __future__ import annotations

from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import ReconcileChunk
from service.reconcile import sql
from service.reconcile.confirm import confirm_range
from service.reconcile.heal import count, heal_some
from service.reconcile.issues import room_for_issues
from service.reconcile.read import read_run
from service.reconcile.scan import scan_range
from service.reconcile.steps import Steps
from service.reconcile.values import Phase, Range, Run, Suspect, add_up
from service.settings import Settings
from service.sync.rows import tables_of


class Chunks:
    """Works on ranges. Every call may be repeated, by anyone, at any time."""

    def __init__(self, engine: AsyncEngine, settings: Settings, steps: Steps) -> None:
        self._engine = engine
        self._settings = settings
        self._steps = steps
        self._tables = tables_of(settings)

    async def work(self, chunk: ReconcileChunk) -> None:
        """Do what is left of one range's pass, and close the pass if it was the last."""
        run_id, phase = UUID(str(chunk.run_id)), Phase[chunk.phase.upper()]
        while await self._do_some(run_id, phase, chunk.chunk):
            pass
        async with self._engine.begin() as conn:
            await self._steps.close_phase(conn, run_id, phase)

    async def _do_some(self, run_id: UUID, phase: Phase, chunk: int) -> bool:
        """One transaction of a range; True while some of it is left."""
        async with self._engine.begin() as conn:
            run = await read_run(conn, run_id)
            found = (await conn.execute(sql.LOCK_RANGE, {"id": run_id, "chunk": chunk})).one_or_none()
            if run is None or found is None or found.run_is_over or run.phase != phase or found.done_phase >= phase:
                return False
            if phase is Phase.SCAN:
                await scan_range(conn, run, chunk, found.after_user, found.upto_user)
                return False
            part = Range(run, chunk, [Suspect(*array) for array in found.suspects], found.counts)
            if phase is Phase.CONFIRM:
                await confirm_range(conn, part, await self._room(conn, run))
                return False
            done = await heal_some(conn, part, self._tables)
        count(run, done)
        return True

    async def _room(self, conn: AsyncConnection, run: Run) -> int:
        counts = add_up((await conn.execute(sql.RANGE_COUNTS, {"id": run.id})).scalars())
        return await room_for_issues(conn, run, self._settings, counts["scanned"])
