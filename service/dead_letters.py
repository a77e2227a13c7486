"""Reading dead letters: by reason, by page, one whole. Every function only queries."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.tables import dead_letters as table

MEANINGS = {
    "malformed": "not a JSON object: broken JSON, not UTF-8, or no value at all",
    "invalid": "JSON, but not what the event's schema says",
    "bad_time": "its ce_time cannot be read, or is before 2000 or more than 5 minutes after the record",
    "unknown_type": "no CloudEvents type, an unknown one, or one that belongs on another topic",
    "unknown_specialization": "`specializations` has no such specialization",
    "unknown_user": "`users` has no such user",
    "level_out_of_range": "the level is below 1 or above the specialization's max_levels",
    "refused_by_database": "a constraint or trigger of the application refused the write",
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
    """One open dead letter in a list. `value_bytes` is the size of its value; None for a tombstone."""

    id: int
    reason: str
    detail: str
    topic: str
    partition: int
    offset: int
    first_seen_at: datetime
    attempts: int
    value_bytes: int | None


@dataclass(frozen=True)
class Letter:
    """One dead letter, whole; `resolved_at` is None while it is open. `record_timestamp` is Kafka's, in ms."""

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


async def count_by_reason(conn: AsyncConnection) -> list[ReasonCount]:
    """Count the open letters of each reason, the most first."""
    seen = table.c.first_seen_at
    query = (
        select(
            table.c.reason, func.count().label("count"), func.min(seen).label("oldest"), func.max(seen).label("newest")
        )
        .where(table.c.resolved_at.is_(None))
        .group_by(table.c.reason)
        .order_by(func.count().desc(), table.c.reason)
    )
    return [ReasonCount(**row) for row in (await conn.execute(query)).mappings()]


async def list_open(
    conn: AsyncConnection, *, reason: str | None = None, before: int | None = None, limit: int = 100
) -> list[LetterLine]:
    """List open letters, newest first. The next page is `before` the last id of this one."""
    query = _line_query().where(table.c.resolved_at.is_(None)).order_by(table.c.id.desc()).limit(limit)
    if reason is not None:
        query = query.where(table.c.reason == reason)
    if before is not None:
        query = query.where(table.c.id < before)
    return [LetterLine(**row) for row in (await conn.execute(query)).mappings()]


async def find(conn: AsyncConnection, letter_id: int) -> Letter | None:
    """Find one letter, open or not; None where there is none of this id."""
    columns = [column for column in table.c if column.name != "value_digest"]
    row = (await conn.execute(select(*columns).where(table.c.id == letter_id))).mappings().one_or_none()
    return Letter(**row) if row else None


def _line_query() -> Select[Any]:
    names = ("id", "reason", "detail", "topic", "partition", "offset", "first_seen_at", "attempts")
    size = func.octet_length(table.c.value).label("value_bytes")  # a list never reads values of megabytes
    return select(*(table.c[name] for name in names), size)
