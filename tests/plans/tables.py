"""Tables of five million rows as the planner sees them, made in seconds: half of the pages, a twentieth of the rows."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

ROWS = 5_000_000
BIG = {
    "public.users": "id, name, email, role) SELECT g, 'User', g || '@example.org', 'student'",
    "public.specialization_progress": "student_id, specialization_id, current_level) SELECT g, 'PLAYER', 1 + g % 8",
    "public.user_licenses": (
        "user_id, specialization_type, current_level, max_achieved_level, started_at) "
        "SELECT g, 'PLAYER', 1 + g % 8, 8, now()"
    ),
    "levelsync.fences": "user_id, specialization, decided_at, level) SELECT g, 'PLAYER', now(), 1",
}
"""The tables that grow with the users, and what a row of each holds."""
_SPARSE = 10
"""How full a page is, in percent; less is not possible."""
ONE_IN = 20
"""Rows of five million for one that is made: half of the pages are then there, which makes a sequential scan seem
cheaper than it is, never dearer."""


async def make_big(engine: AsyncEngine, one_in: int) -> None:
    """Fill the tables with every so-manieth row of `ROWS`, sparsely where they are not all there."""
    full = 100 if one_in == 1 else _SPARSE
    async with engine.begin() as conn:
        await conn.execute(text("SET LOCAL session_replication_role = replica"))
        await conn.execute(text("SET LOCAL statement_timeout = 0"))
        for table, columns in BIG.items():
            await conn.execute(text(f"TRUNCATE {table} CASCADE"))
            await conn.execute(text(f"ALTER TABLE {table} SET (fillfactor = {full}, autovacuum_enabled = false)"))
            made = f"generate_series(1, {ROWS}, {one_in}) g"
            await conn.execute(text(f"INSERT INTO {table} ({columns} FROM {made}"))
            await conn.execute(text(f"ALTER TABLE {table} RESET (fillfactor)"))


async def with_statistics(engine: AsyncEngine) -> None:
    """As autovacuum leaves tables of `ROWS` rows."""
    async with engine.begin() as conn:
        for table in BIG:
            await conn.execute(text(f"ANALYZE {table}"))
        await conn.execute(
            text("""
                UPDATE pg_class SET reltuples = :rows
                 WHERE oid = ANY(CAST(:tables AS regclass[]))
                    OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid = ANY(CAST(:tables AS regclass[])))
            """),
            {"rows": ROWS, "tables": list(BIG)},
        )


async def without_statistics(engine: AsyncEngine) -> None:
    """As a restore leaves them: nobody has analysed anything yet."""
    async with engine.begin() as conn:
        of_ours = "IN (SELECT unnest(CAST(:tables AS regclass[])))"
        await conn.execute(text(f"DELETE FROM pg_statistic WHERE starelid {of_ours}"), {"tables": list(BIG)})
        await conn.execute(
            text(f"""
                UPDATE pg_class SET reltuples = -1, relpages = 0
                 WHERE oid {of_ours} OR oid IN (SELECT indexrelid FROM pg_index WHERE indrelid {of_ours})
            """),
            {"tables": list(BIG)},
        )
