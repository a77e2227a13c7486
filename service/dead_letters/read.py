"""Read dead letters: as lines of a list, counted by reason, or whole, also as JSON documents."""

from __future__ import annotations

import base64
import dataclasses
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.sheet import LETTER_COLUMNS
from service.dead_letters.select import Selection, conditions, is_open, on_its_way
from service.store.tables import dead_letters as table

MEANINGS = {
    "malformed": "the value is not valid JSON, not UTF-8, or null",
    "invalid": "the value does not match the event's schema, or an attribute is invalid",
    "bad_time": "its ce_time cannot be read, is before 2000, or is more than 5 minutes after the record's timestamp",
    "unknown_type": "no CloudEvents type, an unknown one, or one that belongs on another topic",
    "unknown_specialization": "`specializations` has no such specialization",
    "unknown_user": "`users` has no such user",
    "level_out_of_range": "the level is below 1 or above the specialization's max_levels",
    "refused_by_database": "a constraint or trigger of the application refused the write",
    "too_large": "larger than a consumer reads into memory; only its beginning is stored",
}
"""The meaning of each reason."""


@dataclass(frozen=True)
class ReasonCount:
    """The number of letters of one reason, and when the oldest and the newest were first seen."""

    reason: str
    count: int
    oldest: datetime
    newest: datetime


@dataclass(frozen=True)
class LetterLine:
    """One dead letter in a list. `value_bytes` is the size of its value, or None for a tombstone."""

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
    """Some letters, the newest first, and the id before which the next page begins, or None after the last page."""

    letters: list[LetterLine]
    next: int | None


@dataclass(frozen=True)
class Letter:
    """One whole dead letter. `resolved_at` is None while it is open. Timestamps are Kafka's, in milliseconds."""

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
    """When the last replay was sent, if its outcome is not known yet."""
    last_attempt_timestamp: int | None
    """The timestamp of the last replayed record that failed."""
    resolved_by: str | None
    """Who last requested a replay or the discard."""
    state: str
    """As in `LetterLine`."""

    @property
    def record_time(self) -> datetime | None:
        """The record's time, or None for a timestamp that is outside the range of `datetime`."""
        try:
            return datetime.fromtimestamp(self.record_timestamp / 1000, UTC)
        except (ValueError, OverflowError, OSError):
            return None


def as_document(letter: Letter) -> dict[str, Any]:
    """Return a letter as a JSON document. A key or value that is not printable text is null, with base64 beside it."""
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
    """Return the bytes as printable text, or None if they are not."""
    try:
        text = content.decode() if content is not None else None
    except UnicodeDecodeError:
        return None
    printable = text is not None and all(char.isprintable() or char in "\n\r\t" for char in text)
    return text if printable else None


WINDOW = 100_000
"""How many letters one page searches for a user or a text. The bound exists because the search reads their bytes."""


async def count_by_reason(conn: AsyncConnection, selection: Selection | None = None) -> list[ReasonCount]:
    """Count the letters of each reason, the most frequent first: all open letters, or those of a selection.

    The oldest and the newest are those with the least and the greatest id, because PostgreSQL finds these in an index.
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
    """Read a page of letters, the newest first, beginning before an id.

    A search by user or text looks at `WINDOW` letters for each page. Such a page may be short or empty and still have a
    next one.
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
    """List open letters, the newest first. For the next page, pass the last id of this one as `before`."""
    return (await read_page(conn, Selection(reason=reason), before, limit)).letters


async def find(conn: AsyncConnection, letter_id: int) -> Letter | None:
    """Find a letter, open or resolved. Return None if no letter has this id."""
    found = await read_whole(conn, [table.c.id == letter_id], limit=1)
    return found[0] if found else None


async def read_whole(conn: AsyncConnection, wanted: list[ColumnElement[bool]], limit: int) -> list[Letter]:
    """Read letters with their bytes, the newest first. Read at most `SHOWN_BYTES` of each value."""
    columns = [column for column in table.c if column.name not in {"value", "value_digest"}]
    value = func.substring(table.c.value, 1, SHOWN_BYTES).label("value")
    query = select(*columns, value, _state()).where(*wanted).order_by(table.c.id.desc()).limit(limit)
    return [Letter(**row) for row in (await conn.execute(query)).mappings()]


SHOWN_BYTES = 2_000_000
"""Maximum bytes that are read of a letter's value. A larger letter cannot be replayed, because Kafka refuses it."""


def _size() -> Any:
    return func.octet_length(table.c.value).label("value_bytes")  # so that a list does not read the values


def _state() -> Any:
    return case((~is_open(), "resolved"), (on_its_way(), "replaying"), else_="open").label("state")


_LINE = [table.c[name] for name in LETTER_COLUMNS if name in table.c]
