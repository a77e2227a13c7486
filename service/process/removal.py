"""Remove old rows, and erase what levelsync stores about a user."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.dead_letters.select import SEARCHED_BYTES
from service.reconcile.values import KEPT
from service.settings import Settings
from service.stream.background import ReportHealthy

log = structlog.get_logger(__name__)
ACTIONS = timedelta(days=365)
"""How long rows of the audit log are kept."""
SAMPLES = timedelta(hours=48)
"""How long minute samples are kept; the overview shows the last day."""
EVERY = 3600.0
"""Seconds between two removals."""
BATCH_ROWS, BATCH_RUNS = 1000, 10
"""The maximum numbers of rows and of runs that one transaction removes. A run is removed with its ranges and issues."""
_TRY_LOCK = text("SELECT pg_try_advisory_xact_lock(hashtextextended('levelsync retention', 0))")
_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('levelsync retention', 0)) IS NOT NULL")
_LETTERS = text("""
    DELETE FROM levelsync.dead_letters
     WHERE id IN (SELECT id FROM levelsync.dead_letters
                   WHERE first_seen_at < clock_timestamp() - CAST(:age AS interval)
                     AND (resolved_at IS NOT NULL OR replayed_at IS NULL
                          OR replayed_at < clock_timestamp() - interval '1 hour')
                   ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING reason, resolved_at IS NULL AS is_open
""")
"""Letters that are being replayed are skipped, because the replay records its outcome in them."""
_RUNS = text("""
    DELETE FROM levelsync.reconcile_runs
     WHERE id IN (SELECT r.id FROM levelsync.reconcile_runs r
                   WHERE r.finished_at < clock_timestamp() - CAST(:age AS interval)
                     AND r.id IS DISTINCT FROM (SELECT c.run_id FROM levelsync.complete_scans c
                                                 ORDER BY c.finished_at DESC LIMIT 1)
                   ORDER BY r.finished_at LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING id
""")
"""The last complete scan is kept, because the views and the gauges show it."""
_ACTIONS = text("""
    DELETE FROM levelsync.admin_actions
     WHERE id IN (SELECT id FROM levelsync.admin_actions WHERE at < clock_timestamp() - CAST(:age AS interval)
                   ORDER BY at LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING id
""")
_SAMPLES = text("""
    DELETE FROM levelsync.minute_samples
     WHERE minute IN (SELECT minute FROM levelsync.minute_samples
                       WHERE minute < clock_timestamp() - CAST(:age AS interval)
                       ORDER BY minute LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING minute
""")


class Retention:
    """The retention of one process. An advisory lock lets one process at a time remove rows."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._letters_for = settings.dead_letter_retention

    async def run(self, report_healthy: ReportHealthy) -> None:
        """Remove old rows at once and then every hour, until an error or a cancellation."""
        while True:
            await self.clean()
            report_healthy()
            await asyncio.sleep(EVERY)

    async def clean(self) -> dict[str, int]:
        """Remove old rows in bounded transactions; return the number of rows removed from each table."""
        letters: list[Any] = []
        if self._letters_for > timedelta(0):  # 0: letters are kept for ever
            letters = await self._remove(_LETTERS, self._letters_for, BATCH_ROWS)
        removed = {
            "dead_letters": len(letters),
            "runs": len(await self._remove(_RUNS, KEPT, BATCH_RUNS)),
            "admin_actions": len(await self._remove(_ACTIONS, ACTIONS, BATCH_ROWS)),
            "minute_samples": len(await self._remove(_SAMPLES, SAMPLES, BATCH_ROWS)),
        }
        self._log(removed, Counter(row.reason for row in letters if row.is_open))
        return removed

    async def _remove(self, statement: TextClause, age: timedelta, limit: int) -> list[Any]:
        removed: list[Any] = []
        while True:
            # Between two batches another process can have the lock. If both gave up then, rows would be left.
            rows = await self._remove_batch(_LOCK if removed else _TRY_LOCK, statement, age, limit)
            removed += rows
            if len(rows) < limit:
                return removed

    async def _remove_batch(self, lock: TextClause, statement: TextClause, age: timedelta, limit: int) -> Sequence[Any]:
        async with self._engine.begin() as conn:
            if not (await conn.execute(lock)).scalar_one():
                return []
            return (await conn.execute(statement, {"age": age, "limit": limit})).all()

    def _log(self, removed: dict[str, int], still_open: Counter[str]) -> None:
        if any(removed.values()):
            log.info("old rows removed", **removed)
        if still_open:
            log.warning(
                "open dead letters removed: nobody had replayed or discarded them",
                number=still_open.total(),
                by_reason=dict(still_open),
                after_days=self._letters_for.days,
            )


_MENTIONS_USER = (
    f"key = CAST(:key AS bytea) OR encode(substring(value FROM 1 FOR {SEARCHED_BYTES}), 'escape') ~ :json_pattern"
)
_STATEMENTS = {
    "dead letters": f"DELETE FROM levelsync.dead_letters WHERE {_MENTIONS_USER}",
    "events on their way": f"DELETE FROM levelsync.outbox WHERE {_MENTIONS_USER}",
    "rows removed by migrations": """
        DELETE FROM levelsync.removed_rows WHERE "row" ->> 'user_id' = :id OR "row" ->> 'student_id' = :id
    """,
    "runs of this user alone": """
        DELETE FROM levelsync.reconcile_runs WHERE user_id = CAST(:user AS bigint) AND finished_at IS NOT NULL
    """,
    "issues": "DELETE FROM levelsync.drift_issues WHERE user_id = CAST(:user AS bigint)",
    "suspects": """
        UPDATE levelsync.reconcile_ranges AS g
           SET suspects = (SELECT coalesce(jsonb_agg(e.suspect ORDER BY e.number), '[]')
                             FROM jsonb_array_elements(g.suspects) WITH ORDINALITY AS e (suspect, number)
                            WHERE e.suspect ->> 0 <> :id),
               suspect_count = (SELECT count(*) FROM jsonb_array_elements(g.suspects) AS e (suspect)
                                 WHERE e.suspect ->> 0 <> :id)
         WHERE g.after_user < :user AND g.upto_user >= :user
           AND EXISTS (SELECT FROM jsonb_array_elements(g.suspects) AS e (suspect) WHERE e.suspect ->> 0 = :id)
    """,
    "fences": """
        DELETE FROM levelsync.fences
         WHERE user_id = CAST(:user AS bigint) AND NOT EXISTS (SELECT FROM users WHERE id = CAST(:user AS bigint))
    """,
    "decisions in their name": """
        UPDATE levelsync.fences AS f SET decided_by = 'erased' FROM unnest(CAST(:names AS text[])) AS n (name)
         WHERE f.decided_by = n.name OR right(f.decided_by, length(n.name) + 4) = ' by ' || n.name
    """,
    "runs in their name": """
        UPDATE levelsync.reconcile_runs SET requested_by = NULL WHERE requested_by = ANY(CAST(:names AS text[]))
    """,
    "replays and discards in their name": """
        UPDATE levelsync.dead_letters SET resolved_by = 'erased' WHERE resolved_by = ANY(CAST(:names AS text[]))
    """,
    "audit rows in their name": """
        UPDATE levelsync.admin_actions SET subject = 'erased' WHERE subject = ANY(CAST(:names AS text[]))
    """,
    "audit rows about them": """
        UPDATE levelsync.admin_actions SET arguments = '{}', detail = '' WHERE arguments ->> 'user_id' = :id
    """,
}
"""Each statement by what it removes or changes, as the report names it.

Fences are deleted only when the application has deleted the user, because a decision must stand for as long as an event
could raise a level (law 2). A user who is created later with the same id has no history.
"""
_ADDRESS = text("SELECT email FROM users WHERE id = CAST(:user AS bigint)")
_UNFINISHED = text(
    "SELECT count(*) FROM levelsync.reconcile_runs WHERE user_id = CAST(:user AS bigint) AND finished_at IS NULL"
)


async def address_of(conn: AsyncConnection, user_id: int) -> str | None:
    """Return the e-mail address of a user; None where the application has no user of this id."""
    return (await conn.execute(_ADDRESS, {"user": user_id})).scalar_one_or_none()


async def unfinished_runs(conn: AsyncConnection, user_id: int) -> int:
    """Count the unfinished runs of this user alone, which `erase` leaves until they have ended."""
    return int((await conn.execute(_UNFINISHED, {"user": user_id})).scalar_one())


async def erase(conn: AsyncConnection, user_id: int, address: str | None = None) -> dict[str, int]:
    """Erase a user in the caller's transaction; return the number of rows by what they are.

    `address` is the user's e-mail address, which may be the subject of their tokens.
    """
    values: dict[str, Any] = {
        "user": user_id,
        "id": str(user_id),
        "key": str(user_id).encode(),
        "json_pattern": rf'"user_id"\s*:\s*{user_id:d}(?![0-9.eE])',
        "names": [str(user_id), *([address] if address else [])],
    }
    counts: dict[str, int] = {}
    for what, statement in _STATEMENTS.items():
        wanted = {name: value for name, value in values.items() if f":{name}" in statement}
        counts[what] = (await conn.execute(text(statement), wanted)).rowcount
    return counts
