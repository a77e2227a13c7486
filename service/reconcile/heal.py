"""Heal confirmed pairs in small transactions, through the write path of syncs (law 6)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply.rows import Tables
from service.apply.write import PairResult, sync_pairs
from service.core.pair import PairAction, Sides, Why
from service.faults import DecideAgain, Fault, Kind, NotAsDecided, read_fault
from service.reconcile import sql
from service.reconcile.runs import ReconcileIssue, set_statuses
from service.reconcile.values import Range, Run, Suspect, add_labels, count_by_label
from service.store.catalog import repair_of_sequence
from service.telemetry import metrics

log = structlog.get_logger(__name__)


async def heal_next(conn: AsyncConnection, part: Range, tables: Tables) -> Counter[tuple[str, str]]:
    """Heal the next confirmed pairs of a range whose row the caller has locked. Return the outcomes, counted by kind.

    Held pairs, which another transaction has locked, come last, one in each transaction. So a transaction that waits
    has locked no other pair.
    """
    batch = part.suspects
    await conn.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # a refusal at the commit would not name its pair
    issues, held = await _heal_available(conn, part.run, batch, tables)
    if not issues:
        issues, _ = await _heal_one(conn, part.run, batch[0], tables, wait=True)
        held = batch[1:]
    await set_statuses(conn, part.run.id, issues)
    await conn.execute(
        sql.RANGE_HEALED,
        {
            "id": part.run.id,
            "chunk": part.chunk,
            "taken": len(batch),
            "done": len(issues),
            "held": json.dumps(held),
            "counts": json.dumps(_counts(part, issues)),
        },
    )
    return Counter((issue.status, issue.suspect.kind) for issue in issues)


def _counts(part: Range, issues: Sequence[ReconcileIssue]) -> dict[str, Any]:
    """Return the range's counts with those of this batch, to replace the stored ones.

    A pair that changed is no longer drift of this run, like a healed one (law 5).
    """
    done = Counter(issue.status for issue in issues)
    counts: dict[str, Any] = {name: part.counts.get(name, 0) + number for name, number in done.items()}
    gone = count_by_label(issue.suspect for issue in issues if issue.status != "failed")
    return counts | {"gone_by": add_labels([part.counts.get("gone_by", ()), gone])}


def count(run: Run, done: Counter[tuple[str, str]]) -> None:
    """Count heals in the metric, after their commit."""
    for (status, kind), number in done.items():
        if status == "healed":
            metrics.HEALS.labels(run.direction, kind).inc(number)


async def _heal_available(
    conn: AsyncConnection, run: Run, suspects: Sequence[Suspect], tables: Tables
) -> tuple[list[ReconcileIssue], list[Suspect]]:
    """Heal the pairs that are not held, and return their issues and the held suspects.

    If every pair is held, nothing stays locked.
    """
    savepoint = await conn.begin_nested()
    issues, held = await _heal(conn, run, suspects, tables)
    await (savepoint.commit() if issues else savepoint.rollback())
    return issues, held


async def _heal(
    conn: AsyncConnection, run: Run, suspects: Sequence[Suspect], tables: Tables
) -> tuple[list[ReconcileIssue], list[Suspect]]:
    """Heal pairs together. Halve them while the database refuses, until the refused pair is alone and has failed."""
    if len(suspects) == 1:
        return await _heal_one(conn, run, suspects[0], tables, wait=False)
    try:
        async with conn.begin_nested():
            return await _write(conn, run, suspects, tables, wait=False)
    except (DBAPIError, DecideAgain, NotAsDecided) as error:
        fault = read_fault(error)
        if fault.kind not in {Kind.RECORD, Kind.CONFLICT} and not fault.waits:
            raise
    middle = len(suspects) // 2
    first, held = await _heal(conn, run, suspects[:middle], tables)
    second, also_held = await _heal(conn, run, suspects[middle:], tables)
    return first + second, held + also_held


async def _heal_one(
    conn: AsyncConnection, run: Run, suspect: Suspect, tables: Tables, *, wait: bool
) -> tuple[list[ReconcileIssue], list[Suspect]]:
    """Heal one pair. After a conflict, decide again. A second conflict is a refusal like any other (law 1).

    Return its issue, or the suspect when it is held. With `wait`, it is never held.
    """
    for again in (False, True):
        try:
            async with conn.begin_nested():
                return await _write(conn, run, [suspect], tables, wait=wait)
        except (DBAPIError, DecideAgain, NotAsDecided) as error:
            fault = read_fault(error)
            if fault.waits and not wait:
                return [], [suspect]
            if fault.waits:
                return [ReconcileIssue(suspect, "failed", "another transaction kept its rows locked for too long")], []
            if fault.kind is Kind.CONFLICT and not again:
                continue
            if fault.kind not in {Kind.RECORD, Kind.CONFLICT}:
                raise
            log.warning("heal refused", run_id=str(run.id), user_id=suspect.user_id, error=fault.message)
            return [ReconcileIssue(suspect, "failed", await _repair(conn, fault) or fault.message)], []
    raise AssertionError  # the second attempt always ends


async def _repair(conn: AsyncConnection, fault: Fault) -> str:
    """Return how to repair a sequence that is behind, or an empty string."""
    return await repair_of_sequence(conn, fault.constraint) if fault.constraint else ""


async def _write(
    conn: AsyncConnection, run: Run, suspects: Sequence[Suspect], tables: Tables, *, wait: bool
) -> tuple[list[ReconcileIssue], list[Suspect]]:
    seen = {(s.user_id, s.specialization): sides_of(s) for s in suspects}
    cause = f"reconcile {run.id}"
    results = await sync_pairs(conn, sorted(seen), run.direction, cause=cause, only_if=seen, tables=tables, wait=wait)
    done = [s for s in suspects if (s.user_id, s.specialization) in results]
    held = [s for s in suspects if (s.user_id, s.specialization) not in results]
    return [ReconcileIssue(s, *_status(results[s.user_id, s.specialization])) for s in done], held


def sides_of(suspect: Suspect) -> Sides:
    """Return what the scan saw, in the form that the write path compares."""
    return Sides(
        progress_level=suspect.progress_level,
        license_level=suspect.license_level,
        progress_exists=suspect.kind != "missing_progress",
        license_exists=suspect.kind != "missing_license",
    )


def _status(result: PairResult) -> tuple[str, str]:
    """Return the status and its detail. A pair that changed, even into agreement, is left to the next run (law 6)."""
    if result.decision.action is not PairAction.NONE:
        return "healed", ""
    if result.decision.why in {Why.CHANGED_MEANWHILE, Why.IN_SYNC}:
        return "changed_meanwhile", ""
    return "failed", result.decision.detail
