"""Compare one range of keys inside PostgreSQL; only what differs reaches this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.faults import Kind, read_fault
from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.values import FAILED_BECAUSE, Run

log = structlog.get_logger(__name__)


MOST_FAILURES = 100
"""Users of a range that are told apart because they cannot be read; beyond it, what is left fails together."""


@dataclass(slots=True)
class _Seen:
    """What a scan saw of a range."""

    scanned: int = 0
    matching: int = 0
    suspects: list[Any] = field(default_factory=list)
    failed: int = 0
    reason: str = ""

    @property
    def counts(self) -> dict[str, Any]:
        """As the range's row keeps them."""
        counts: dict[str, Any] = {"scanned": self.scanned, "matching": self.matching}
        return counts | {"failed": self.failed, FAILED_BECAUSE: self.reason} if self.failed else counts


async def scan_range(conn: AsyncConnection, run: Run, chunk: int, after: int, upto: int) -> int:
    """Scan the range whose row the caller holds, and keep what it saw there; returns the number of suspects."""
    seen = _Seen()
    await _scan(conn, run, after, upto, seen)
    kept = {"suspects": json.dumps(seen.suspects), "suspect_count": len(seen.suspects)}
    await conn.execute(sql.RANGE_SCANNED, {"id": run.id, "chunk": chunk, "counts": json.dumps(seen.counts)} | kept)
    return len(seen.suspects)


async def _scan(conn: AsyncConnection, run: Run, after: int, upto: int, seen: _Seen) -> None:
    """Compare the users of a range; where a row cannot be read, halve until its user stands alone and has failed."""
    try:
        async with conn.begin_nested():
            found = await _compare(conn, run, after, upto)
    except DBAPIError as error:
        fault = read_fault(error)
        if fault.kind is not Kind.RECORD:
            raise
        if upto - after == 1 or seen.failed >= MOST_FAILURES:
            log.warning("users cannot be compared", run_id=str(run.id), after=after, upto=upto, error=fault.message)
            seen.failed, seen.reason = seen.failed + upto - after, f"user {upto}: {fault.message}"
            return
        middle = (after + upto) // 2
        await _scan(conn, run, after, middle, seen)
        await _scan(conn, run, middle, upto, seen)
    else:
        seen.scanned, seen.matching = seen.scanned + found.scanned, seen.matching + found.matching
        seen.suspects += found.suspects


async def _compare(conn: AsyncConnection, run: Run, after: int, upto: int) -> Any:
    curriculum = await read_curriculum(conn)  # where no maximum is known, the range waits and the fault is named
    values: dict[str, object] = {"after": after, "upto": upto, **curriculum.parameters}
    if run.specialization is not None:
        values["specialization"] = run.specialization
    return (await conn.execute(text(sql.compare_range(run.specialization)), values)).one()
