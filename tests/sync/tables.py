"""Rows to sync, and the tables as they are, row by whole row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.infrastructure.waiting import eventually
from tests.laws.tables import become_owner, empty_tables

Levels = Mapping[tuple[int, str], int | None]
PLAYER = (1, "PLAYER")
_TABLES = (
    "public.user_licenses",
    "public.specialization_progress",
    "public.license_progressions",
    "levelsync.fences",
    "levelsync.outbox",
)
_PROGRESS = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp, updated_at)
    VALUES (:user, :name, :level, 777, '2026-01-01')
"""
_LICENSE = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at, updated_at)
    VALUES (:user, :name, :level, :level, '2026-01-01', '2026-01-01')
"""
_BLOCKED = """
    SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def fill(engine: AsyncEngine, progress: Levels | None = None, licenses: Levels | None = None) -> None:
    """Make the two tables hold exactly these rows."""
    await empty_tables(engine)
    async with engine.begin() as conn:
        await become_owner(conn)
        await conn.execute(text("TRUNCATE levelsync.reconcile_runs, levelsync.outbox CASCADE"))
        await _add(conn, progress or {}, licenses or {})


async def add_rows(engine: AsyncEngine, *, progress: Levels | None = None, licenses: Levels | None = None) -> None:
    """Create rows beside those that are there."""
    async with engine.begin() as conn:
        await _add(conn, progress or {}, licenses or {})


async def _add(conn: AsyncConnection, progress: Levels, licenses: Levels) -> None:
    for statement, levels in ((_PROGRESS, progress), (_LICENSE, licenses)):
        for (user, name), level in levels.items():
            await conn.execute(text(statement), {"user": user, "name": name, "level": level})


async def everything(engine: AsyncEngine) -> dict[str, list[tuple[Any, ...]]]:
    """Every row of every table that a sync writes, whole."""
    async with engine.connect() as conn:
        return {
            table: [tuple(row) for row in await conn.execute(text(f"SELECT * FROM {table} ORDER BY 1, 2"))]
            for table in _TABLES
        }


async def read(engine: AsyncEngine, query: str, **values: object) -> list[Any]:
    """The rows of a query."""
    async with engine.connect() as conn:
        return list((await conn.execute(text(query), values)).all())


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Change the database."""
    async with engine.begin() as conn:
        for statement in statements:
            await conn.execute(text(statement))


async def somebody_waits(engine: AsyncEngine) -> None:
    """Wait until a transaction of this database waits for a lock."""

    async def blocked() -> bool:
        return bool((await read(engine, _BLOCKED))[0][0])

    await eventually(blocked, 10)
