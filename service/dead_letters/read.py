"""Dead letters as they are read: a line each, grouped by reason, whole; and as JSON documents."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.dead_letters.select import Selection, conditions, is_open, on_its_way
from service.store.tables import dead_letters as table

MEANINGS = {
    "malformed": "not a JSON object: broken JSON, not UTF-8, or no value at all",
    "invalid": "JSON, but not what the event's schema says",
    "bad_time": "its ce_time cannot be read, or is before 2000 or more than 5 minutes after the record",
    "unknown_type": "no CloudEvents type, an unknown one, or one that belongs on another topic",
    "unknown_specialization": "`specializations` has no such specialization",
    "unknown_user": "`users` has no such user",
    "level_out_of_range": "the level is below 1 or above the specialization's max_levels",
    "refused_by_database": "a constraint or trigger of the application refused the write",
    "too_large": "larger than a consumer holds in memory; only its beginning is kept",
}
"""Each reason in words."""


@dataclass(frozen=True)
class ReasonCount:
    """The open dead letters of one reason: how many, and when the oldest and the newest were first seen."""

    reason: str
    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True)
class LetterLine:
    """One dead letter in a list. `value_bytes` is the size of its value; None for a tombstone."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    first_seen_at: datetime
    attempts: int
    value_bytes: int | None
    state: str
    """`open`, `replaying` (sent less than a minute ago) or `resolved`."""
    resolution: str | None


@dataclass(frozen=True)
class LetterPage:
    """Some letters, the newest first, and the id before which the next page begins; None where there is none."""

    letters: list[LetterLine]
    next: int | None


@dataclass(frozen=True)
class Letter:
    """One dead letter, whole; `resolved_at` is None while it is open. Timestamps are Kafka's, in ms."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    record_timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[dict[str, Any]]
    first_seen_at: datetime
    attempts: int
    resolved_at: datetime | None
    resolution: str | None
    replayed_at: datetime | None
    """Since when a replay is on its way."""
    last_attempt_timestamp: int | None
    """Of the last replayed record that failed."""
    resolved_by: str | None
    """Who asked last for a replay or for the discard."""
    state: str
    """As in `LetterLine`."""

    @property
    def record_time(self) -> datetime | None:
        """The record's time; None where its publisher sent a number that no calendar has."""
        try:
            return datetime.fromtimestamp(self.record_timestamp / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            return None


def as_document(letter: Letter) -> dict[str, Any]:
    """Give key and value as text, or, where they are none, null and as base64 beside it."""
    document = dataclasses.asdict(letter)
    for name in ("key", "value"):
        content = document.pop(name)
        text = as_text(content)
        document[name] = text
        document[f"{name}_base64"] = (
            base64.b64encode(content).decode() if content is not None and text is None else None
        )
    return document | {"meaning": MEANINGS.get(letter.reason, letter.reason)}


def as_text(content: bytes | None) -> str | None:
    """Give the bytes as text that a terminal can take, else None."""
    try:
        text = content.decode() if content is not None else None
    except UnicodeDecodeError:
        return None
    printable = text is not None and all(char.isprintable() or char in "\n\r\t" for char in text)
    return text if printable else None


WINDOW = 100_000
"""Letters that one page looks through for a user or a text: their bytes have to be searched."""


async def count_by_reason(conn: AsyncConnection, selection: Selection | None = None) -> list[ReasonCount]:
    """Count the letters of each reason, the most first: all open ones, or those of a selection.

    The oldest and the newest are those of the least and greatest id: with these PostgreSQL reads an index alone.
    """
    found = (
        select(
            table.c.reason,
            func.count().label("count"),
            func.min(table.c.id).label("first"),
            func.max(table.c.id).label("last"),
        )
        .where(*conditions(selection or Selection()))
        .group_by(table.c.reason)
        .subquery()
    )
    first, last = (
        select(table.c.first_seen_at).where(table.c.id == bound).scalar_subquery()
        for bound in (found.c.first, found.c.last)
    )
    query = select(found.c.reason, found.c.count, first.label("oldest"), last.label("newest")).order_by(
        found.c.count.desc(), found.c.reason
    )
    return [ReasonCount(**row) for row in (await conn.execute(query)).mappings()]


async def read_page(
    conn: AsyncConnection, selection: Selection, before: int | None = None, limit: int = 100
) -> LetterPage:
    """A page of letters, the newest first, beginning before an id.

    A page of a search by user or text may be short, or empty, and still have a next one: it looks at so many only.
    """
    newest = select(func.coalesce(func.max(table.c.id), 0))
    end = before if before is not None else int((await conn.execute(newest)).scalar_one()) + 1
    searched = selection.user_id is not None or selection.text is not None
    floor = end - WINDOW if searched else 0
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
