"""Which dead letters are meant: by id, or by reason, topic, time, user and state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    ColumnElement,
    LargeBinary,
    Text,
    and_,
    any_,
    case,
    cast,
    func,
    literal,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncConnection

from events import Reason
from service.store.tables import dead_letters as table
from service.stream.producer import MAX_REQUEST_BYTES

State = Literal["open", "replaying", "resolved", "all"]
"""`replaying` are those of the open ones that are on their way; `resolved` were replayed or discarded."""
STATES: tuple[State, ...] = ("open", "replaying", "resolved", "all")
ON_ITS_WAY = timedelta(minutes=1)
"""How long a replay may take before the letter may be sent again."""
SEARCHED_BYTES = 8_000_000
"""How much of a value is searched for a user."""
_ROOM = 10_000
"""Bytes that a record takes beside its key, value and headers, generously."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The letters that fit everything that is given. `user_id` is looked for in keys and in values that are JSON."""

    ids: tuple[int, ...] | None = None
    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    user_id: int | None = None
    state: State = "open"
    text: str | None = None
    """In the detail without case; in key, value and headers as it is."""

    @property
    def everything(self) -> bool:
        """Whether nothing narrows it."""
        return self == Selection(state=self.state)


@dataclass(frozen=True, slots=True)
class Census:
    """What a selection holds. Letters on their way were sent within the last minute and have not come back yet."""

    open: int
    on_its_way: int
    unsendable: int
    """Open letters that Kafka does not take again: too large for one record, cut, or without both key and value."""


def is_open() -> ColumnElement[bool]:
    """Neither replayed nor discarded."""
    return table.c.resolved_at.is_(None)


def on_its_way() -> ColumnElement[bool]:
    """Sent within the last minute, and not come back yet."""
    recently = table.c.replayed_at > func.clock_timestamp() - literal(ON_ITS_WAY)
    return and_(is_open(), func.coalesce(recently, False))


def unsendable() -> ColumnElement[bool]:
    """Kafka would not take it, or no producer can write it."""
    too_large = or_(size() > MAX_REQUEST_BYTES - _ROOM, table.c.reason == Reason.TOO_LARGE.value)
    return or_(too_large, and_(table.c.key.is_(None), table.c.value.is_(None)))


def size() -> ColumnElement[int]:
    """Bytes of a letter's key, value and headers."""
    key, value = (func.coalesce(func.octet_length(column), 0) for column in (table.c.key, table.c.value))
    return key + value + func.octet_length(cast(table.c.headers, Text))


def conditions(selection: Selection) -> list[ColumnElement[bool]]:
    """The WHERE of a selection."""
    found = [made(value) for name, made in _CONDITIONS.items() if (value := getattr(selection, name)) is not None]
    return found + _STATE_CONDITIONS[selection.state]


def of_user(key: ColumnElement[Any], value: ColumnElement[Any], user_id: int) -> ColumnElement[bool]:
    """Whose key is the user's id, or in whose JSON, broken or not, a `user_id` says it.

    The bytes are searched as text, because PostgreSQL's JSON functions raise on what is none; no more than the first
    ones, because the text of a hundred megabytes is more than PostgreSQL can search. The id's digits are looked for
    first, which takes a tenth of the time.
    """
    first = func.substring(value, 1, SEARCHED_BYTES)
    digits = func.position(literal(str(user_id).encode(), LargeBinary).op("IN")(first)) > 0
    said = func.encode(first, "escape").regexp_match(rf'"user_id"\s*:\s*{user_id:d}(?![0-9.eE])')
    return or_(key == str(user_id).encode(), func.coalesce(case((digits, said), else_=False), False))


def _has_text(wanted: str) -> ColumnElement[bool]:
    """Where the text is; of a value its first bytes are searched, as they are."""
    raw = literal(wanted.encode(), LargeBinary)
    places = [
        func.strpos(func.lower(table.c.detail), wanted.lower()),
        func.strpos(cast(table.c.headers, Text), wanted),
        func.position(raw.op("IN")(table.c.key)),
        func.position(raw.op("IN")(func.substring(table.c.value, 1, SEARCHED_BYTES))),
    ]
    return or_(*(func.coalesce(place, 0) > 0 for place in places))


async def census(conn: AsyncConnection, selection: Selection) -> Census:
    """Count what a selection holds."""
    query = select(
        func.count().filter(is_open()).label("open"),
        func.count().filter(on_its_way()).label("on_its_way"),
        func.count().filter(and_(is_open(), unsendable())).label("unsendable"),
    ).where(*conditions(selection))
    return Census(**(await conn.execute(query)).mappings().one())


async def last_id(conn: AsyncConnection) -> int:
    """The newest letter's id: what arises later is in no selection."""
    return int((await conn.execute(select(func.coalesce(func.max(table.c.id), 0)))).scalar_one())


async def lock_some(
    conn: AsyncConnection,
    selection: Selection,
    but: Sequence[ColumnElement[bool]],
    between: tuple[int, int],
    limit: int,
) -> list[Any]:
    """Lock the next letters of a selection, except those that are `but`; their ids and sizes.

    `between` are the ids behind which to begin, and up to which to go.

    Whoever waited for the lock sees what the one before has done, and passes those letters by.
    """
    query = (
        select(table.c.id, size().label("bytes"))
        .where(*conditions(selection), is_open(), ~or_(*but), table.c.id > between[0], table.c.id <= between[1])
        .order_by(table.c.id)
        .limit(limit)
        .with_for_update(key_share=True)
    )
    return list(await conn.execute(query))


_CONDITIONS: dict[str, Callable[[Any], ColumnElement[bool]]] = {
    "ids": lambda ids: table.c.id == any_(cast(list(ids), ARRAY(BigInteger))),
    "reason": lambda reason: table.c.reason == reason,
    "topic": lambda topic: table.c.topic == topic,
    "since": lambda since: table.c.first_seen_at >= since,
    "until": lambda until: table.c.first_seen_at < until,
    "user_id": lambda user_id: of_user(table.c.key, table.c.value, user_id),
    "text": _has_text,
}
_STATE_CONDITIONS: dict[State, list[ColumnElement[bool]]] = {
    "open": [is_open()],
    "replaying": [on_its_way()],
    "resolved": [table.c.resolved_at.is_not(None)],
    "all": [],
}
