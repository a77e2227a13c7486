"""Scan, confirm or heal one range of a run, when its message arrives."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import ReconcileChunk
from events.base import INT4_MAX
from service.apply.rows import tables_of
from service.apply.write import MAX_PAIRS
from service.faults import Kind, read_fault
from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.confirm import confirm_range
from service.reconcile.heal import count, heal_next
from service.reconcile.runs import room_for_issues, store_time_left
from service.reconcile.steps import Steps
from service.reconcile.values import FAILED_BECAUSE, Phase, Range, Run, Suspect, run_of
from service.settings import Settings
from service.telemetry import metrics

log = structlog.get_logger(__name__)


MAX_FAILURES = 100
"""Number of unreadable users that a scan finds one by one. After that, each unreadable part fails as a whole."""


@dataclass(slots=True)
class _Seen:
    """The result of the scan of a range."""

    scanned: int = 0
    matching: int = 0
    suspects: list[Any] = field(default_factory=list)
    failed: int = 0
    reason: str = ""

    @property
    def counts(self) -> dict[str, Any]:
        """The counts in the form of the range's row."""
        counts: dict[str, Any] = {"scanned": self.scanned, "matching": self.matching}
        return counts | {"failed": self.failed, FAILED_BECAUSE: self.reason} if self.failed else counts


async def scan_range(conn: AsyncConnection, run: Run, chunk: int, after: int, upto: int) -> int:
    """Scan the range whose row the caller has locked, store the result, and return the number of suspects."""
    seen = _Seen()
    await _scan(conn, run, after, upto, seen)
    kept = {"suspects": json.dumps(seen.suspects), "suspect_count": len(seen.suspects)}
    await conn.execute(sql.RANGE_SCANNED, {"id": run.id, "chunk": chunk, "counts": json.dumps(seen.counts)} | kept)
    return len(seen.suspects)


async def _scan(conn: AsyncConnection, run: Run, after: int, upto: int, seen: _Seen) -> None:
    """Compare the users of a range. Halve it while a row cannot be read, until its user is alone and has failed."""
    try:
        async with conn.begin_nested():
            found = await _compare(conn, run, after, upto)
    except DBAPIError as error:
        fault = read_fault(error)
        if fault.kind is not Kind.RECORD:
            raise
        if upto - after == 1 or seen.failed >= MAX_FAILURES:
            log.warning("users cannot be compared", run_id=str(run.id), after=after, upto=upto, error=fault.message)
            seen.failed += (await conn.execute(sql.USERS_BETWEEN, {"after": after, "upto": upto})).scalar_one()
            seen.reason = f"user {upto}: {fault.message}"
            return
        middle = (after + upto) // 2
        await _scan(conn, run, after, middle, seen)
        await _scan(conn, run, middle, upto, seen)
    else:
        seen.scanned, seen.matching = seen.scanned + found.scanned, seen.matching + found.matching
        seen.suspects += found.suspects


async def _compare(conn: AsyncConnection, run: Run, after: int, upto: int) -> Any:
    curriculum = await read_curriculum(conn)  # raises when a maximum is unknown: the range waits
    values: dict[str, object] = {"after": after, "upto": upto, **curriculum.parameters}
    if run.specialization is not None:
        values["specialization"] = run.specialization
    return (await conn.execute(text(sql.compare_range(run.specialization)), values)).one()


class Chunks:
    """Works on ranges. Any worker may repeat any call at any time."""

    def __init__(self, engine: AsyncEngine, settings: Settings, steps: Steps) -> None:
        self._engine = engine
        self._settings = settings
        self._steps = steps
        self._tables = tables_of(settings)

    async def work(self, *chunks: ReconcileChunk) -> None:
        """Finish the pass over each range. Then close each pass that has no open range left."""
        ranges = [(chunk.run_id, Phase[chunk.phase.upper()], chunk.chunk) for chunk in chunks]
        for run_id, phase, number in ranges:
            await self._finish_pass(run_id, phase, number)
        for run_id, phase in sorted({(run_id, phase) for run_id, phase, _ in ranges}):
            async with self._engine.begin() as conn:
                await self._steps.close_phase(conn, run_id, phase)
        self._steps.woken.set()

    async def _finish_pass(self, run_id: UUID, phase: Phase, chunk: int) -> None:
        """Finish the pass over a range. If it fails, leave it to a later message, so that other runs continue.

        Raises:
            Exception: PostgreSQL cannot be reached, or there was a conflict. The caller retries the whole batch.
        """
        try:
            while await self._work_in_transaction(run_id, phase, chunk):
                async with self._engine.begin() as conn:  # a new transaction, so that it locks no range's row
                    await store_time_left(conn, run_id)
        except Exception as error:
            fault = read_fault(error)
            if fault.kind in {Kind.TRANSIENT, Kind.CONFLICT}:
                raise
            metrics.RETRIES.labels(Kind.INSTALLATION.value).inc()
            log.exception("a range failed and is retried", run_id=str(run_id), chunk=chunk, error=fault.message)

    async def _work_in_transaction(self, run_id: UUID, phase: Phase, chunk: int) -> bool:
        """Work on a range in one transaction. Return True if a part of the range is left."""
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
            done = await heal_next(conn, part, self._tables)
        count(run, done)
        return True


def _which(run_id: UUID, phase: Phase, chunk: int) -> dict[str, object]:
    """Return the parameters for a range, with the number of suspects to read."""
    return {"id": run_id, "chunk": chunk, "most": MAX_PAIRS if phase is Phase.HEAL else INT4_MAX}
