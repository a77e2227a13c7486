"""The tables as the model has them: read from PostgreSQL, in the model's own shapes."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.laws.model import Model, Pair

_EMPTY = """
    TRUNCATE public.license_progressions, public.user_licenses, public.specialization_progress,
             levelsync.dead_letters, levelsync.fences, levelsync.applied_offsets RESTART IDENTITY CASCADE
"""

_OWNER = """
    SELECT set_config('role', pg_get_userbyid(datdba), true) FROM pg_database WHERE datname = current_database()
"""


async def become_owner(conn: AsyncConnection) -> None:
    """Have the rights of the database's owner until the transaction ends; a role with fewer may be the service's."""
    await conn.execute(text(_OWNER))


async def empty_tables(engine: AsyncEngine) -> None:
    """Both level tables, the history and levelsync's own tables, empty; the users stay."""
    async with engine.begin() as conn:
        await become_owner(conn)
        await conn.execute(text(_EMPTY))


async def levels(engine: AsyncEngine, table: str, user: str, specialization: str) -> dict[Pair, int]:
    """Every pair's level in one of the two tables."""
    async with engine.connect() as conn:
        rows = await conn.execute(text(f"SELECT {user}, {specialization}, current_level FROM public.{table}"))
        return {(row[0], row[1]): row[2] for row in rows}


async def licenses(engine: AsyncEngine) -> dict[Pair, int]:
    """Every license's level."""
    return await levels(engine, "user_licenses", "user_id", "specialization_type")


async def progress(engine: AsyncEngine) -> dict[Pair, int]:
    """Every progress row's level."""
    return await levels(engine, "specialization_progress", "student_id", "specialization_id")


async def history(engine: AsyncEngine) -> list[tuple[Pair, int, int, datetime, str]]:
    """The history in the order it was written."""
    query = """
        SELECT l.user_id, l.specialization_type, h.from_level, h.to_level, h.advanced_at, h.advancement_reason
          FROM public.license_progressions h JOIN public.user_licenses l ON l.id = h.user_license_id ORDER BY h.id
    """
    async with engine.connect() as conn:
        return [((r[0], r[1]), r[2], r[3], r[4].replace(tzinfo=UTC), r[5]) for r in await conn.execute(text(query))]


async def assert_equal_to(model: Model, engine: AsyncEngine, *, in_order: bool = True) -> None:
    """The tables are what the model says; with `in_order` the history too, row by row for each pair."""
    assert await licenses(engine) == model.licenses
    assert await progress(engine) == model.progress
    found = await history(engine)
    if in_order:
        assert sorted(found, key=_by_pair) == sorted(model.history, key=_by_pair)
    else:
        assert _tops(found) == model.licenses


def _by_pair(row: tuple[Pair, int, int, datetime, str]) -> Pair:
    return row[0]


def _tops(rows: list[tuple[Pair, int, int, datetime, str]]) -> dict[Pair, int]:
    """Where each pair's history ends, when it is a chain from 0 without a gap."""
    tops: dict[Pair, int] = {}
    for pair, from_level, to_level, _, _ in rows:
        assert tops.get(pair, 0) == from_level, f"the history of {pair} has a gap"
        tops[pair] = to_level
    return tops
