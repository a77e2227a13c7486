"""What an application's database holds and does, for the tests of this folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.sync.tables import execute, read

_HISTORY = """
    SELECT l.user_id, l.specialization_type, h.from_level, h.to_level
      FROM license_progressions h JOIN user_licenses l ON l.id = h.user_license_id ORDER BY h.id
"""


async def trigger(
    engine: AsyncEngine, when: str, body: str, table: str = "user_licenses", name: str = "hostile"
) -> None:
    """Create a row trigger of the application: `when` as in BEFORE UPDATE, `body` in PL/pgSQL."""
    await execute(
        engine,
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE TRIGGER {name} {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()",
    )


async def levels_of(engine: AsyncEngine, user: int, specialization: str = "PLAYER") -> tuple[int | None, int | None]:
    """The levels of one pair: progress, license; None for a row that is not there."""
    query = """
        SELECT (SELECT current_level FROM specialization_progress
                 WHERE student_id = :user AND specialization_id = :name),
               (SELECT current_level FROM user_licenses WHERE user_id = :user AND specialization_type = :name)
    """
    ((progress, license_),) = await read(engine, query, user=user, name=specialization)
    return progress, license_


async def steps(engine: AsyncEngine) -> list[tuple[int, str, int, int]]:
    """The history in the order it was written: user, specialization, from, to."""
    return [tuple(row) for row in await read(engine, _HISTORY)]


async def letters(engine: AsyncEngine) -> list[tuple[int, str]]:
    """Open dead letters: offset and reason."""
    query = 'SELECT "offset", reason FROM levelsync.dead_letters WHERE resolved_at IS NULL ORDER BY 1'
    return [tuple(row) for row in await read(engine, query)]


async def position(engine: AsyncEngine, topic: str = "progress.leveled-up") -> int:
    """How far partition 0 of a topic is applied."""
    query = "SELECT next_offset FROM levelsync.applied_offsets WHERE topic = :topic AND partition = 0"
    return int((await read(engine, query, topic=topic))[0][0])


@asynccontextmanager
async def held(engine: AsyncEngine, statement: str) -> AsyncIterator[AsyncConnection]:
    """A session of the application that has run a statement, and takes it back when the block ends."""
    async with engine.connect() as conn:
        await conn.execute(text(statement))
        yield conn
        await conn.rollback()
