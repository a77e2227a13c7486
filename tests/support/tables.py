"""The tables, as tests fill and read them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from operator import itemgetter
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from tests.support.model import Model, Pair
from tests.support.waiting import eventually

T = TypeVar("T")
# A TRUNCATE would replace the files of every table and index, which costs more than a test's few rows.
_EMPTY = """
    WITH history AS (DELETE FROM public.license_progressions), licenses AS (DELETE FROM public.user_licenses),
         progress AS (DELETE FROM public.specialization_progress), letters AS (DELETE FROM levelsync.dead_letters),
         fences AS (DELETE FROM levelsync.fences), positions AS (DELETE FROM levelsync.applied_offsets)
    SELECT setval(pg_get_serial_sequence(t, 'id'), 1, false)
      FROM unnest(ARRAY['public.license_progressions', 'public.user_licenses', 'public.specialization_progress',
                        'levelsync.dead_letters']) AS t
"""
_EMPTY_RUNS = "WITH outbox AS (DELETE FROM levelsync.outbox) DELETE FROM levelsync.reconcile_runs"

_OWNER = """
    SELECT set_config('role', pg_get_userbyid(datdba), true) FROM pg_database WHERE datname = current_database()
"""


async def become_owner(conn: AsyncConnection) -> None:
    """Use the rights of the database's owner until the transaction ends, whatever role the service has."""
    await conn.execute(text(_OWNER))


async def empty_tables(engine: AsyncEngine) -> None:
    """Empty both level tables, the history and levelsync's own tables. The users stay."""
    await execute(engine, _EMPTY)


async def levels(engine: AsyncEngine, table: str, user: str, specialization: str) -> dict[Pair, int]:
    """Return every pair's level in one of the two tables."""
    rows = await read(engine, f"SELECT {user}, {specialization}, current_level FROM public.{table}")
    return {(row[0], row[1]): row[2] for row in rows}


async def licenses(engine: AsyncEngine) -> dict[Pair, int]:
    return await levels(engine, "user_licenses", "user_id", "specialization_type")


async def progress(engine: AsyncEngine) -> dict[Pair, int]:
    return await levels(engine, "specialization_progress", "student_id", "specialization_id")


async def history(engine: AsyncEngine) -> list[tuple[Pair, int, int, datetime, str]]:
    """Return the history in the order in which it was written."""
    query = """
        SELECT l.user_id, l.specialization_type, h.from_level, h.to_level, h.advanced_at, h.advancement_reason
          FROM public.license_progressions h JOIN public.user_licenses l ON l.id = h.user_license_id ORDER BY h.id
    """
    return [((r[0], r[1]), r[2], r[3], r[4].replace(tzinfo=UTC), r[5]) for r in await read(engine, query)]


async def assert_equal_to(model: Model, engine: AsyncEngine, *, in_order: bool = True) -> None:
    """Compare the tables with the model, with `in_order` also the history, row by row for each pair."""
    assert await licenses(engine) == model.licenses
    assert await progress(engine) == model.progress
    found = await history(engine)
    if in_order:
        assert sorted(found, key=itemgetter(0)) == sorted(model.history, key=itemgetter(0))
    else:
        assert _tops(found) == model.licenses


def _tops(rows: list[tuple[Pair, int, int, datetime, str]]) -> dict[Pair, int]:
    """Return where each pair's history ends, if it is a chain from 0 without a gap."""
    tops: dict[Pair, int] = {}
    for pair, from_level, to_level, _, _ in rows:
        assert tops.get(pair, 0) == from_level, f"the history of {pair} has a gap"
        tops[pair] = to_level
    return tops


Levels = Mapping[Pair, int | None]
PLAYER = (1, "PLAYER")


def of_players(*levels: T) -> dict[Pair, T]:
    """Return the levels of users 1, 2, 3 and so on in PLAYER."""
    return {(user, "PLAYER"): level for user, level in enumerate(levels, start=1)}


_TABLES = (
    *("public.user_licenses", "public.specialization_progress", "public.license_progressions"),
    *("levelsync.dead_letters", "levelsync.fences", "levelsync.outbox"),
)
_PROGRESS = """
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp, updated_at)
    VALUES (:user, :name, :level, 777, '2026-01-01')
"""
_LICENSE = """
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at, updated_at)
    VALUES (:user, :name, :level, :level, '2026-01-01', '2026-01-01')
"""


async def fill(engine: AsyncEngine, progress: Levels | None = None, licenses: Levels | None = None) -> None:
    """Replace the rows of the two tables by these."""
    await execute(engine, _EMPTY, _EMPTY_RUNS)
    await add_rows(engine, progress=progress, licenses=licenses)


async def add_rows(engine: AsyncEngine, *, progress: Levels | None = None, licenses: Levels | None = None) -> None:
    """Create rows beside the existing ones."""
    async with engine.begin() as conn:
        await become_owner(conn)
        await insert_levels(conn, progress or {}, licenses or {})


async def insert_levels(conn: AsyncConnection, progress: Levels, licenses: Levels) -> None:
    for statement, levels in ((_PROGRESS, progress), (_LICENSE, licenses)):
        if levels:
            rows = [{"user": user, "name": name, "level": level} for (user, name), level in levels.items()]
            await conn.execute(text(statement), rows)


async def everything(engine: AsyncEngine) -> dict[str, list[Any]]:
    """Return every row of every table that batches and syncs write."""
    return {table: await read(engine, f"SELECT * FROM {table} ORDER BY 1, 2") for table in _TABLES}


async def read(engine: AsyncEngine, query: str, **values: object) -> list[Any]:
    """Return the rows of a query."""
    async with engine.connect() as conn:
        return list((await conn.execute(text(query), values)).all())


async def execute(engine: AsyncEngine, *statements: str) -> None:
    """Run statements in one transaction as the database's owner."""
    async with engine.begin() as conn:
        await become_owner(conn)
        for statement in statements:
            await conn.execute(text(statement))


async def count(engine: AsyncEngine, what: str) -> int:
    """Return how many rows there are of `what`, a table with or without a condition."""
    return int((await read(engine, f"SELECT count(*) FROM {what}"))[0][0])


async def waiting(engine: AsyncEngine) -> int:
    """Return how many sessions of this database wait for a lock."""
    return await count(engine, "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'")


async def somebody_waits(engine: AsyncEngine, sessions: int = 1) -> None:
    """Wait until so many sessions of this database wait for a lock."""

    async def blocked() -> bool:
        return await waiting(engine) >= sessions

    await eventually(blocked)


def trigger_sql(
    when: str, body: str, condition: str = "true", *, on: str = "user_licenses", at_commit: bool = False
) -> tuple[str, str]:
    """Return the statements that create a row trigger: `when` as in BEFORE UPDATE, `body` in PL/pgSQL."""
    name = f"hostile_to_{on}"
    kind, deferred = ("CONSTRAINT TRIGGER", "DEFERRABLE INITIALLY DEFERRED") if at_commit else ("TRIGGER", "")
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$",
        f"CREATE {kind} {name} {when} ON {on} {deferred} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION {name}()",
    )


async def trigger(engine: AsyncEngine, when: str, body: str, *, on: str = "user_licenses") -> None:
    """Create a row trigger of the application, as `trigger_sql` does."""
    await execute(engine, *trigger_sql(when, body, on=on))


async def levels_of(engine: AsyncEngine, user: int) -> tuple[int | None, int | None]:
    """Return the levels of a user's pair PLAYER: progress, license. None is a missing row."""
    query = """
        SELECT (SELECT current_level FROM specialization_progress
                 WHERE student_id = :user AND specialization_id = 'PLAYER'),
               (SELECT current_level FROM user_licenses WHERE user_id = :user AND specialization_type = 'PLAYER')
    """
    ((progress, license_),) = await read(engine, query, user=user)
    return progress, license_


async def steps(engine: AsyncEngine) -> list[tuple[int, str, int, int]]:
    """Return the history in the order in which it was written: user, specialization, from, to."""
    return [(*pair, before, after) for pair, before, after, *_ in await history(engine)]


async def letters(engine: AsyncEngine) -> list[tuple[int, str]]:
    """Return offset and reason of open dead letters."""
    query = 'SELECT "offset", reason FROM levelsync.dead_letters WHERE resolved_at IS NULL ORDER BY 1'
    return [tuple(row) for row in await read(engine, query)]


async def position(engine: AsyncEngine, topic: str = "progress.leveled-up") -> int:
    """Return the position of partition 0 of a topic."""
    query = "SELECT next_offset FROM levelsync.applied_offsets WHERE topic = :topic AND partition = 0"
    return int((await read(engine, query, topic=topic))[0][0])


@asynccontextmanager
async def held(engine: AsyncEngine, statement: str) -> AsyncIterator[AsyncConnection]:
    """A session of the application that has run a statement, and rolls it back when the block ends."""
    async with engine.connect() as conn:
        await conn.execute(text(statement))
        yield conn
        await conn.rollback()
