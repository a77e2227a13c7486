"""Select dead letters by id, or by reason, topic, time, user, text and state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

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
from service.core.names import LetterState
from service.store.tables import dead_letters as table
from service.stream.producer import MAX_REQUEST_BYTES

ON_ITS_WAY = timedelta(minutes=1)
"""How long a letter that was sent is `replaying`. After that, it can be sent again."""
SEARCHED_BYTES = 8_000_000
"""How many bytes of a value are searched."""
_RECORD_OVERHEAD = 10_000
"""An upper bound of a record's bytes in addition to its key, value and headers."""


@dataclass(frozen=True, slots=True)
class Selection:
    """The letters that match all given fields. `user_id` is searched in keys and in JSON values."""

    ids: tuple[int, ...] | None = None
    reason: str | None = None
    topic: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    user_id: int | None = None
    state: LetterState = "open"
    text: str | None = None
    """Searched in the detail in any case, and in the key, value and headers in exactly this case."""

    @property
    def everything(self) -> bool:
        """Whether it selects all letters of its state."""
        return self == Selection(state=self.state)


@dataclass(frozen=True, slots=True)
class SelectionCounts:
    """The numbers of letters in a selection. `on_its_way` counts those that are `replaying`."""

    open: int
    on_its_way: int
    unsendable: int
    """Open letters that cannot be sent again: too large for one record, cut, or without both key and value."""


def is_open() -> ColumnElement[bool]:
    """Return the condition for letters that were neither replayed nor discarded."""
    return table.c.resolved_at.is_(None)


def on_its_way() -> ColumnElement[bool]:
    """Return the condition for letters that are `replaying`: sent within `ON_ITS_WAY`, and without an outcome yet."""
    recently = table.c.replayed_at > func.clock_timestamp() - literal(ON_ITS_WAY)
    return and_(is_open(), func.coalesce(recently, False))


def unsendable() -> ColumnElement[bool]:
    """Return the condition for letters that Kafka would refuse, or that a producer cannot write."""
    too_large = or_(size() > MAX_REQUEST_BYTES - _RECORD_OVERHEAD, table.c.reason == Reason.TOO_LARGE.value)
    return or_(too_large, and_(table.c.key.is_(None), table.c.value.is_(None)))


def size() -> ColumnElement[int]:
    """Return the expression for the bytes of a letter's key, value and headers."""
    key, value = (func.coalesce(func.octet_length(column), 0) for column in (table.c.key, table.c.value))
    return key + value + func.octet_length(cast(table.c.headers, Text))


def conditions(selection: Selection) -> list[ColumnElement[bool]]:
    """Return the WHERE conditions of a selection."""
    given = asdict(selection)
    found = [condition(given[name]) for name, condition in _CONDITIONS.items() if given[name] is not None]
    return found + _STATE_CONDITIONS[selection.state]


def of_user(key: ColumnElement[Any], value: ColumnElement[Any], user_id: int) -> ColumnElement[bool]:
    """Return the condition for letters with the user's id as key, or as `user_id` in their JSON, valid or not.

    The value is searched as text, because PostgreSQL's JSON functions raise on invalid JSON. Only its first bytes are
    searched, because PostgreSQL cannot search a hundred megabytes of text. The digits of the id are searched first,
    which takes a tenth of the time.
    """
    first = func.substring(value, 1, SEARCHED_BYTES)
    digits = func.position(literal(str(user_id).encode(), LargeBinary).op("IN")(first)) > 0
    in_json = func.encode(first, "escape").regexp_match(rf'"user_id"\s*:\s*{user_id:d}(?![0-9.eE])')
    return or_(key == str(user_id).encode(), func.coalesce(case((digits, in_json), else_=False), False))


def _has_text(wanted: str) -> ColumnElement[bool]:
    """Return the condition for letters that contain the text. Only the first bytes of a value are searched."""
    raw = literal(wanted.encode(), LargeBinary)
    places = [
        func.strpos(func.lower(table.c.detail), wanted.lower()),
        func.strpos(cast(table.c.headers, Text), wanted),
        func.position(raw.op("IN")(table.c.key)),
        func.position(raw.op("IN")(func.substring(table.c.value, 1, SEARCHED_BYTES))),
    ]
    return or_(*(func.coalesce(place, 0) > 0 for place in places))


async def count_selection(conn: AsyncConnection, selection: Selection) -> SelectionCounts:
    """Count the letters of a selection."""
    query = select(
        func.count().filter(is_open()).label("open"),
        func.count().filter(on_its_way()).label("on_its_way"),
        func.count().filter(and_(is_open(), unsendable())).label("unsendable"),
    ).where(*conditions(selection))
    return SelectionCounts(**(await conn.execute(query)).mappings().one())


async def last_id(conn: AsyncConnection) -> int:
    """Return the newest letter's id, or 0 if there is none."""
    return int((await conn.execute(select(func.coalesce(func.max(table.c.id), 0)))).scalar_one())


async def lock_next(
    conn: AsyncConnection,
    selection: Selection,
    excluded: Sequence[ColumnElement[bool]],
    between: tuple[int, int],
    limit: int,
) -> list[Any]:
    """Lock the next letters of a selection, except those that match `excluded`, and return their ids and sizes.

    `between` contains the id after which to begin, and the last id.

    After a wait for a lock, PostgreSQL checks the conditions again, so letters that another transaction has changed may
    be left out.
    """
    query = (
        select(table.c.id, size().label("bytes"))
        .where(*conditions(selection), is_open(), ~or_(*excluded), table.c.id > between[0], table.c.id <= between[1])
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
_STATE_CONDITIONS: dict[LetterState, list[ColumnElement[bool]]] = {
    "open": [is_open()],
    "replaying": [on_its_way()],
    "resolved": [table.c.resolved_at.is_not(None)],
    "all": [],
}
