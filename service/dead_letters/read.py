"""Reading dead letters: by reason, by page, one whole. Every function only queries."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.tables import dead_letters as table
from service.dead_letters.select import Selection, conditions, is_open, on_its_way
from service.dead_letters.values import Letter, LetterLine, LetterPage, ReasonCount

WINDOW = 100_000
"""Letters that one page looks through for a user: their bytes have to be searched."""


async def count_by_reason(conn: AsyncConnection, selection: Selection | None = None) -> list[ReasonCount]:
    """Count the letters of each reason, the most first: all open ones, or those of a selection."""
    seen = table.c.first_seen_at
    query = (
        select(
            table.c.reason, func.count().label("count"), func.min(seen).label("oldest"), func.max(seen).label("newest")
        )
        .where(*conditions(selection or Selection()))
        .group_by(table.c.reason)
        .order_by(func.count().desc(), table.c.reason)
    )
    return [ReasonCount(**row) for row in (await conn.execute(query)).mappings()]


async def read_page(
    conn: AsyncConnection, selection: Selection, before: int | None = None, limit: int = 100
) -> LetterPage:
    """A page of letters, the newest first, beginning before an id.

    A page of a user's letters may be short, or empty, and still have a next one: it looks at so many letters only.
    """
    newest = select(func.coalesce(func.max(table.c.id), 0))
    end = before if before is not None else int((await conn.execute(newest)).scalar_one()) + 1
    floor = end - WINDOW if selection.user_id is not None else 0
    wanted = [*conditions(selection), table.c.id < end, table.c.id >= floor]
    query = select(*_LINE, _size(), _state()).where(*wanted).order_by(table.c.id.desc()).limit(limit + 1)
    found = [LetterLine(**row) for row in (await conn.execute(query)).mappings()]
    if len(found) > limit:
        return LetterPage(found[:limit], found[limit - 1].id)
    return LetterPage(found, floor if floor > 0 else None)


async def list_open(
    conn: AsyncConnection, *, reason: str | None = None, before: int | None = None, limit: int = 100
) -> list[LetterLine]:
    """List open letters, newest first. The next page is `before` the last id of this one."""
    return (await read_page(conn, Selection(reason=reason), before, limit)).letters


async def find(conn: AsyncConnection, letter_id: int) -> Letter | None:
    """Find one letter, open or not; None where there is none of this id."""
    found = await read_whole(conn, [table.c.id == letter_id], limit=1)
    return found[0] if found else None


async def read_whole(conn: AsyncConnection, wanted: list[ColumnElement[bool]], limit: int) -> list[Letter]:
    """Letters with their bytes, the newest first: only as many as memory should hold, and of each what is shown."""
    columns = [column for column in table.c if column.name not in {"value", "value_digest"}]
    value = func.substring(table.c.value, 1, SHOWN_BYTES).label("value")
    query = select(*columns, value, _state()).where(*wanted).order_by(table.c.id.desc()).limit(limit)
    return [Letter(**row) for row in (await conn.execute(query)).mappings()]


SHOWN_BYTES = 2_000_000
"""Bytes of a letter's value that are read at most. A larger one cannot be replayed, because Kafka does not take it."""


def _size() -> Any:
    return func.octet_length(table.c.value).label("value_bytes")  # a list never reads values of megabytes


def _state() -> Any:
    return case((~is_open(), "resolved"), (on_its_way(), "replaying"), else_="open").label("state")


_LINE = [
    table.c[name]
    for name in (
        "id",
        "reason",
        "detail",
        "topic",
        "partition",
        "offset",
        "first_seen_at",
        "attempts",
        "resolution",
    )
]
