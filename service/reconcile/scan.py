"""Compare one range of keys inside PostgreSQL; only what differs reaches this process."""

from __future__ import annotations

import json

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.levels import maxima_values
from service.reconcile import sql
from service.reconcile.values import Run


async def scan_range(conn: AsyncConnection, run: Run, chunk: int, after: int, upto: int) -> int:
    """Scan the range whose row the caller holds, and keep what it saw there; returns the number of suspects."""
    values: dict[str, object] = {"after": after, "upto": upto, **maxima_values(conn)}
    if run.specialization is not None:
        values["specialization"] = run.specialization
    seen = (await conn.execute(text(sql.compare_range(run.specialization)), values)).one()
    counts = {"scanned": seen.scanned, "matching": seen.matching}
    kept = {"suspects": json.dumps(seen.suspects), "suspect_count": len(seen.suspects), "counts": json.dumps(counts)}
    await conn.execute(sql.RANGE_SCANNED, {"id": run.id, "chunk": chunk} | kept)
    return len(seen.suspects)
