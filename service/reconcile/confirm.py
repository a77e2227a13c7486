"""Confirm suspects: under the lock, both rows still have exactly the levels that the scan saw (law 5)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import read_fault
from service.reconcile import sql
from service.reconcile.runs import ReconcileIssue, keep
from service.reconcile.values import Phase, Range, Suspect, count_by_label

Levels = Mapping[Suspect, int | None]


async def confirm_range(conn: AsyncConnection, part: Range, room: int) -> None:
    """Confirm the suspects of a range whose row the caller has locked. Store up to `room` issues."""
    suspects = part.suspects
    statuses = await _statuses(conn, suspects)
    await keep(conn, part.run.id, [ReconcileIssue(s, statuses[s]) for s in suspects][:room])
    confirmed = [s for s in suspects if statuses[s] == "confirmed"]
    counts: dict[str, Any] = dict(Counter(_count_name(s, statuses[s]) for s in suspects))
    counts["lowered"] = sum(s.is_lowered(part.run.direction) for s in confirmed)
    counts["found_by"] = count_by_label(s for s in suspects if statuses[s] != "changed_meanwhile")
    await conn.execute(
        sql.RANGE_CONFIRMED,
        {
            "id": part.run.id,
            "chunk": part.chunk,
            "phase": Phase.CONFIRM if confirmed else Phase.HEAL,
            "suspects": json.dumps(confirmed),
            "suspect_count": len(confirmed),
            "counts": json.dumps(counts),
        },
    )


async def _statuses(conn: AsyncConnection, suspects: Sequence[Suspect]) -> dict[Suspect, str]:
    """Compare pairs under their locks. Held pairs, which another transaction has locked, come last and one at a time.

    After the first wait that takes too long, this does not wait for other held pairs: they are unconfirmed too.
    """
    ordered = sorted(suspects, key=lambda s: (s.user_id, s.specialization))
    statuses = await _compare(conn, ordered, wait=False)
    patient = True
    for suspect in [s for s in ordered if s not in statuses]:
        try:
            found = await _compare(conn, [suspect], wait=patient)
        except DBAPIError as error:
            if not read_fault(error).waits:
                raise
            found, patient = {}, False
        statuses[suspect] = found.get(suspect, "unconfirmed")
    return statuses


async def _compare(conn: AsyncConnection, suspects: Sequence[Suspect], *, wait: bool) -> dict[Suspect, str]:
    """Lock and read progress first, then licenses, in key order (law 6). Without `wait`, leave out held pairs.

    The locks end with the comparison, so that other transactions do not wait for a whole range.
    """
    lock: Literal["wait", "skip"] = "wait" if wait else "skip"
    savepoint = await conn.begin_nested()
    try:
        progress = await _levels(conn, sql.progress_of_pairs(lock), suspects)
        licenses = await _levels(conn, sql.licenses_of_pairs(lock), suspects)
        held = set() if wait else await _held(conn, suspects, progress, licenses)
    finally:
        await savepoint.rollback()
    return {s: _status(s, progress, licenses) for s in suspects if s not in held}


async def _held(conn: AsyncConnection, suspects: Sequence[Suspect], progress: Levels, licenses: Levels) -> set[Suspect]:
    """Return the suspects with a skipped row. A read without a lock tells a skipped row from a missing one."""
    without_progress = [s for s in suspects if s not in progress]
    without_license = [s for s in suspects if s not in licenses]
    skipped = {
        **await _levels(conn, sql.progress_of_pairs("none"), without_progress),
        **await _levels(conn, sql.licenses_of_pairs("none"), without_license),
    }
    return set(skipped)


async def _levels(conn: AsyncConnection, statement: TextClause, suspects: Sequence[Suspect]) -> Levels:
    """Return the levels of the rows that the statement finds."""
    if not suspects:
        return {}
    keys = {"users": [s.user_id for s in suspects], "specializations": [s.specialization for s in suspects]}
    levels, present = (await conn.execute(statement, keys)).one()
    return {s: level for s, level, exists in zip(suspects, levels, present, strict=True) if exists}


def _status(suspect: Suspect, progress: Levels, licenses: Levels) -> str:
    if (progress.get(suspect), licenses.get(suspect)) != (suspect.progress_level, suspect.license_level):
        return "changed_meanwhile"
    return "confirmed" if suspect.healable else "needs_decision"


def _count_name(suspect: Suspect, status: str) -> str:
    """Return the count for a suspect: its kind if it is confirmed, else its status."""
    return suspect.kind if status == "confirmed" else status
