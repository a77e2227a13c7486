"""Removing what levelsync kept long enough: dead letters, runs with their issues, the audit log, minute samples."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import structlog
from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.background import Well
from service.reconcile.values import KEPT
from service.settings import Settings

log = structlog.get_logger(__name__)
ACTIONS = timedelta(days=365)
"""How long the audit log is kept."""
SAMPLES = timedelta(hours=48)
"""How long minute samples are kept; the overview shows the last day."""
EVERY = 3600.0
"""Seconds between two times of looking."""
BATCH_ROWS, BATCH_RUNS = 1000, 10
"""What one transaction removes at most; a run takes its ranges and issues with it."""
_OUR_TURN = text("SELECT pg_try_advisory_xact_lock(hashtextextended('levelsync retention', 0))")
_LETTERS = text("""
    DELETE FROM levelsync.dead_letters
     WHERE id IN (SELECT id FROM levelsync.dead_letters
                   WHERE first_seen_at < clock_timestamp() - CAST(:age AS interval)
                     AND (resolved_at IS NOT NULL OR replayed_at IS NULL
                          OR replayed_at < clock_timestamp() - interval '1 hour')
                   ORDER BY id LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING reason, resolved_at IS NULL AS is_open
""")
"""A letter that is on its way is left: what becomes of it is told there."""
_RUNS = text("""
    DELETE FROM levelsync.reconcile_runs
     WHERE id IN (SELECT r.id FROM levelsync.reconcile_runs r
                   WHERE r.finished_at < clock_timestamp() - CAST(:age AS interval)
                     AND r.id IS DISTINCT FROM (SELECT c.run_id FROM levelsync.complete_scans c
                                                 ORDER BY c.finished_at DESC LIMIT 1)
                   ORDER BY r.finished_at LIMIT :limit FOR UPDATE SKIP LOCKED)
 RETURNING id
""")
"""All but the last complete one, which the views and gauges tell of."""
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
    """The retention of one process. Several of them take turns: PostgreSQL decides whose it is."""

    def __init__(self, engine: AsyncEngine, settings: Settings) -> None:
        self._engine = engine
        self._letters_for = settings.dead_letter_retention

    async def run(self, well: Well) -> None:
        """Look at once, and then every hour; ends only by an error."""
        while True:
            await self.clean()
            well()
            await asyncio.sleep(EVERY)

    async def clean(self) -> dict[str, int]:
        """Remove what is old, in bounded transactions; return how many rows of each table."""
        letters: list[Any] = []
        if self._letters_for > timedelta(0):  # 0: for ever
            letters = await self._remove(_LETTERS, self._letters_for, BATCH_ROWS)
        removed = {
            "dead_letters": len(letters),
            "runs": len(await self._remove(_RUNS, KEPT, BATCH_RUNS)),
            "admin_actions": len(await self._remove(_ACTIONS, ACTIONS, BATCH_ROWS)),
            "minute_samples": len(await self._remove(_SAMPLES, SAMPLES, BATCH_ROWS)),
        }
        self._say(removed, Counter(row.reason for row in letters if row.is_open))
        return removed

    async def _remove(self, statement: TextClause, age: timedelta, limit: int) -> list[Any]:
        removed: list[Any] = []
        while True:
            rows = await self._remove_some(statement, age, limit)
            removed += rows
            if len(rows) < limit:
                return removed

    async def _remove_some(self, statement: TextClause, age: timedelta, limit: int) -> Sequence[Any]:
        async with self._engine.begin() as conn:
            if not (await conn.execute(_OUR_TURN)).scalar_one():
                return []
            return (await conn.execute(statement, {"age": age, "limit": limit})).all()

    def _say(self, removed: dict[str, int], still_open: Counter[str]) -> None:
        if any(removed.values()):
            log.info("old rows removed", **removed)
        if still_open:
            log.warning(
                "dead letters were removed that nobody had replayed or discarded",
                number=still_open.total(),
                by_reason=dict(still_open),
                after_days=self._letters_for.days,
            )
