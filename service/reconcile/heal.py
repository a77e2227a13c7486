"""Healing what is confirmed, in small transactions: the same write path as a sync's (law 6)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service import metrics
from service.apply.targets import check_at_once
from service.database.faults import DecideAgain, Kind, read_fault
from service.reconcile import sql
from service.reconcile.issues import Issue, set_statuses
from service.reconcile.values import HEALED, Range, Run, Suspect, add_labels, by_label
from service.sync.pair import Action, Sides, Why
from service.sync.rows import Tables
from service.sync.write import MOST_PAIRS, PairResult, sync_pairs

log = structlog.get_logger(__name__)


async def heal_some(conn: AsyncConnection, part: Range, tables: Tables) -> Counter[tuple[str, str]]:
    """Heal the next confirmed pairs of a range whose row the caller holds; returns what became of them, by kind."""
    batch, rest = part.suspects[:MOST_PAIRS], part.suspects[MOST_PAIRS:]
    await check_at_once(conn)
    issues = await _heal(conn, part.run, batch, tables)
    await set_statuses(conn, part.run.id, issues)
    await conn.execute(
        sql.RANGE_HEALED,
        {
            "id": part.run.id,
            "chunk": part.chunk,
            "phase": HEALED if not rest else HEALED - 1,
            "suspects": json.dumps([suspect.as_array() for suspect in rest]),
            "suspect_count": len(rest),
            "counts": json.dumps(_counts(part, issues)),
        },
    )
    return Counter((issue.status, issue.suspect.kind) for issue in issues)


def _counts(part: Range, issues: Sequence[Issue]) -> dict[str, Any]:
    """The range's counts so far and this batch's: set, not added, under the range's row.

    What moved meanwhile is gone as what is healed: no drift of this run (law 5).
    """
    done = Counter(issue.status for issue in issues)
    counts: dict[str, Any] = {name: part.counts.get(name, 0) + number for name, number in done.items()}
    gone = by_label(issue.suspect for issue in issues if issue.status != "failed")
    return counts | {"gone_by": add_labels([part.counts.get("gone_by", ()), gone])}


def count(run: Run, done: Counter[tuple[str, str]]) -> None:
    """Count heals once they are committed."""
    for (status, kind), number in done.items():
        if status == "healed":
            metrics.HEALS.labels(run.direction, kind).inc(number)


async def _heal(conn: AsyncConnection, run: Run, suspects: Sequence[Suspect], tables: Tables) -> list[Issue]:
    """Heal together; where the database refuses, halve until the pair that it refuses stands alone and has failed.

    A pair whose missing row somebody makes at the same moment is left to the next run (law 6).
    """
    if not suspects:
        return []
    try:
        async with conn.begin_nested():
            return await _write(conn, run, suspects, tables)
    except DecideAgain as error:
        if len(suspects) == 1:
            return [Issue(suspects[0], "changed_meanwhile", str(error))]
    except DBAPIError as error:
        fault = read_fault(error)
        if fault.kind is not Kind.RECORD:
            raise
        if len(suspects) == 1:
            log.warning("heal refused", run_id=str(run.id), user_id=suspects[0].user_id, error=fault.message)
            return [Issue(suspects[0], "failed", fault.message)]
    middle = len(suspects) // 2
    first = await _heal(conn, run, suspects[:middle], tables)
    return first + await _heal(conn, run, suspects[middle:], tables)


async def _write(conn: AsyncConnection, run: Run, suspects: Sequence[Suspect], tables: Tables) -> list[Issue]:
    seen = {(s.user_id, s.specialization): sides_of(s) for s in suspects}
    cause = f"reconcile {run.id}"
    results = await sync_pairs(conn, sorted(seen), run.direction, cause=cause, only_if=seen, tables=tables)
    return [Issue(s, *_status(results[s.user_id, s.specialization])) for s in suspects]


def sides_of(suspect: Suspect) -> Sides:
    """What the scan saw, as the write path compares it."""
    return Sides(
        progress_level=suspect.progress_level,
        license_level=suspect.license_level,
        progress_exists=suspect.kind != "missing_progress",
        license_exists=suspect.kind != "missing_license",
    )


def _status(result: PairResult) -> tuple[str, str]:
    """A pair that moved, even into agreement, is left to the next run (law 6)."""
    if result.decision.action is not Action.NONE:
        return "healed", ""
    if result.decision.why in {Why.CHANGED_MEANWHILE, Why.IN_SYNC}:
        return "changed_meanwhile", ""
    return "failed", result.decision.detail
