"""Law 5, its last step: under the lock, both rows still hold exactly the levels that the scan saw."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause
from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.reconcile.issues import Issue, keep
from service.reconcile.values import CONFIRMED, HEALED, Range, Suspect, by_label

Levels = Mapping[tuple[int, str], int | None]


async def confirm_range(conn: AsyncConnection, part: Range, room: int) -> None:
    """Tell confirmed from changed for the range whose row the caller holds; keep up to `room` issues."""
    suspects = part.suspects
    statuses = await _statuses(conn, suspects)
    await keep(conn, part.run.id, [Issue(s, statuses[s]) for s in suspects][:room])
    confirmed = [s for s in suspects if statuses[s] == "confirmed"]
    counts: dict[str, Any] = dict(Counter(_name(s, statuses[s]) for s in suspects))
    counts["found_by"] = by_label(s for s in suspects if statuses[s] != "changed_meanwhile")
    await conn.execute(
        sql.RANGE_CONFIRMED,
        {
            "id": part.run.id,
            "chunk": part.chunk,
            "phase": CONFIRMED if confirmed else HEALED,
            "suspects": json.dumps([s.as_array() for s in confirmed]),
            "suspect_count": len(confirmed),
            "counts": json.dumps(counts),
        },
    )


async def _statuses(conn: AsyncConnection, suspects: Sequence[Suspect]) -> dict[Suspect, str]:
    """Lock and read progress first, then licenses, in key order (law 6)."""
    ordered = sorted(suspects, key=lambda s: (s.user_id, s.specialization))
    progress = await _levels(conn, sql.SHARE_PROGRESS, ordered)
    licenses = await _levels(conn, sql.SHARE_LICENSES, ordered)
    return {s: _status(s, progress, licenses) for s in suspects}


async def _levels(conn: AsyncConnection, statement: TextClause, suspects: Sequence[Suspect]) -> Levels:
    keys = {"users": [s.user_id for s in suspects], "specializations": [s.specialization for s in suspects]}
    return {(row.user_id, row.specialization): row.level for row in await conn.execute(statement, keys)}


def _status(suspect: Suspect, progress: Levels, licenses: Levels) -> str:
    pair = (suspect.user_id, suspect.specialization)
    if (progress.get(pair), licenses.get(pair)) != (suspect.progress_level, suspect.license_level):
        return "changed_meanwhile"
    return "confirmed" if suspect.healable else "needs_decision"


def _name(suspect: Suspect, status: str) -> str:
    """The count that a suspect goes to: its kind where it is confirmed drift."""
    return suspect.kind if status == "confirmed" else status
