"""How fast a run's present step goes, and how much time it has left.

A step's beginning and the present are both read from PostgreSQL's clock. The least time left that was estimated in a
step is kept in the run's row, so that no two answers about one step show a time left that grows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.values import Run, RunPhase, Step

SURE_AFTER = 1.0
"""Seconds of a step before its time left is estimated: the first ranges say little."""


@dataclass(frozen=True, slots=True)
class Pace:
    """The present step of a run: how long it has gone on, and what of its work is done.

    The work of a scan is its ranges; that of a confirmation or a heal is its pairs.
    """

    step: Step
    seconds: float = 0.0
    done: int = 0
    total: int = 0
    scanned: int = 0
    least_left: float | None = None
    """The least time left that was known in this step; of the grace time, how long it is."""

    @property
    def phase(self) -> RunPhase | None:
        """What people call the step; None where the run has ended."""
        return self.step.phase

    @property
    def seconds_left(self) -> float | None:
        """Return the time that the step has left; it never grows. None: unknown."""
        if self.least_left is None:
            return None
        return max(0.0, self.least_left - self.seconds) if self.step is Step.GRACE else self.least_left

    @property
    def pairs_per_second(self) -> float | None:
        """Return how many pairs a second the step works on; None where it works on none."""
        if self.step not in _WORK or not self.seconds:
            return None
        return (self.scanned if self.step is Step.SCAN else self.done) / self.seconds

    def estimate(self) -> float | None:
        """Estimate the time left from what is done; None where too little is."""
        if self.step not in _WORK or not self.done or self.seconds < SURE_AFTER:
            return None
        return self.seconds * (self.total - self.done) / self.done


_WORK = frozenset({Step.SCAN, Step.CONFIRM, Step.HEAL})


async def read_paces(conn: AsyncConnection, runs: Sequence[Run]) -> dict[UUID, Pace]:
    """Read the pace of each run that has not ended."""
    ids = [run.id for run in runs if run.finished_at is None]
    if not ids:
        return {}
    rows = await conn.execute(sql.PACE, {"ids": ids})
    return {r.id: Pace(Step(r.step), r.seconds, r.total - r.open, r.total, r.scanned, r.seconds_left) for r in rows}


async def note_time_left(conn: AsyncConnection, run_id: UUID) -> None:
    """Keep the estimate of a run's present step where it is the least so far; a row that is held is left alone."""
    for row in await conn.execute(sql.PACE, {"ids": [run_id]}):
        pace = Pace(Step(row.step), row.seconds, row.total - row.open, row.total)
        left = pace.estimate()
        if left is not None and (row.seconds_left is None or left < row.seconds_left):
            await conn.execute(sql.NOTE_TIME_LEFT, {"id": run_id, "step": row.step, "left": left})
