"""Discard and replay dead letters, in batches.

The consumer that reads a replayed record decides the outcome (`service.apply.dead_letters`). If the record applies, its
letter is closed. If it fails, the letter's attempts are counted.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.core.decode import FIRST_TIMESTAMP_HEADER, LETTER_HEADER
from service.dead_letters.select import Selection, last_id, lock_next, on_its_way, unsendable
from service.outbox.put import NOTIFY

SEND_AGAIN = text(f"""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT d.topic, d.key, d.value,
           (SELECT coalesce(jsonb_agg(h.header ORDER BY h.number), '[]')
              FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, number)
             WHERE h.header ->> 'key' IS NULL
                OR h.header ->> 'key' NOT IN ('{FIRST_TIMESTAMP_HEADER}', '{LETTER_HEADER}'))
           || jsonb_build_array(
                jsonb_build_object('key', '{FIRST_TIMESTAMP_HEADER}', 'value',
                                   least(d.record_timestamp, earlier.timestamp)::text),
                jsonb_build_object('key', '{LETTER_HEADER}', 'value', d.id::text))
      FROM levelsync.dead_letters d
      LEFT JOIN LATERAL (
           SELECT CASE WHEN h.header ->> 'value' ~ '^[0-9]{{1,15}}$' THEN nullif((h.header ->> 'value')::bigint, 0) END
             FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, number)
            WHERE h.header ->> 'key' = '{FIRST_TIMESTAMP_HEADER}'
            ORDER BY h.number LIMIT 1) AS earlier (timestamp) ON true
     WHERE d.id = ANY(CAST(:ids AS bigint[]))
     ORDER BY d.id
""")
"""Put records into the outbox unchanged, with two more headers, which replace those of an earlier replay. The first
timestamp is the earlier one of the record's own and the replaced header's, as the appliers read it (law 2)."""

MARK_SENT = text("""
    UPDATE levelsync.dead_letters SET replayed_at = clock_timestamp(), resolved_by = :by
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")

CLOSE_DISCARDED = text("""
    UPDATE levelsync.dead_letters
       SET resolved_at = clock_timestamp(), resolution = 'discarded', resolved_by = :by, replayed_at = NULL
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")

FOLLOW = text("""
    SELECT d.id, d.resolved_at IS NOT NULL AS resolved, d.replayed_at IS NOT NULL AS on_its_way
      FROM levelsync.dead_letters d WHERE d.id = ANY(CAST(:ids AS bigint[]))
""")
"""Read the outcome of replays."""


BATCH_LETTERS = 1000
BATCH_BYTES = 16_000_000
"""A transaction ends with the letter that reaches this size."""
ALL = sys.maxsize
Write = Callable[[AsyncConnection, list[int]], Awaitable[None]]
"""A function that writes a batch of letters, by their ids, in its transaction."""


async def in_batches(
    engine: AsyncEngine, selection: Selection, excluded: Sequence[ColumnElement[bool]], write: Write, limit: int
) -> AsyncIterator[list[int]]:
    """Lock a selection's open letters in batches, except those that match `excluded`. Call `write` and yield the ids.

    This ends after `limit` letters. Letters that are stored after the start are left out, so that a replay that becomes
    a new letter is not sent again.
    """
    async with engine.connect() as conn:
        upto, after = await last_id(conn), 0
    while limit > 0:
        async with engine.begin() as conn:
            locked = await lock_next(conn, selection, excluded, (after, upto), min(BATCH_LETTERS, limit))
            ids = _at_most(BATCH_BYTES, locked)
            if ids:
                await write(conn, ids)
        if not ids:
            return
        yield ids
        after, limit = ids[-1], limit - len(ids)


def _at_most(limit: int, rows: Sequence[Any]) -> list[int]:
    """Return the ids of the first rows, up to the row that reaches `limit` bytes."""
    ids, size = [], 0
    for row in rows:
        if size >= limit:
            break
        ids.append(row.id)
        size += row.bytes
    return ids


def discard(
    engine: AsyncEngine, selection: Selection, by: str, also: Write | None = None, limit: int = ALL
) -> AsyncIterator[list[int]]:
    """Close the open letters of a selection, and yield the ids of each transaction.

    Letters that are `replaying` are left out, because the outcome is not known yet. `also` and `limit` are as in
    `replay`.
    """

    async def close(conn: AsyncConnection, ids: list[int]) -> None:
        await conn.execute(CLOSE_DISCARDED, {"ids": ids, "by": by})
        if also is not None:
            await also(conn, ids)

    return in_batches(engine, selection, [on_its_way()], close, limit)


@dataclass(frozen=True, slots=True)
class Followed:
    """The outcome of replays: letters that were closed, failed again, or wait for their outcome."""

    closed: list[int]
    failed: list[int]
    pending: list[int]


def replay(
    engine: AsyncEngine, selection: Selection, by: str, also: Write | None = None, limit: int = ALL
) -> AsyncIterator[list[int]]:
    """Send the open letters of a selection again, in the order of their ids, and yield the ids of each transaction.

    Letters that were sent within the last minute are left out, so that two people send a letter only once. Letters that
    Kafka would refuse are left out too. `also` is called in each transaction, for example to write the audit log. At
    most `limit` letters are sent.
    """

    async def send(conn: AsyncConnection, ids: list[int]) -> None:
        await conn.execute(SEND_AGAIN, {"ids": ids})
        await conn.execute(MARK_SENT, {"ids": ids, "by": by})
        await conn.execute(NOTIFY)
        if also is not None:
            await also(conn, ids)

    return in_batches(engine, selection, [on_its_way(), unsendable()], send, limit)


async def follow(conn: AsyncConnection, ids: Iterable[int]) -> Followed:
    """Read the outcome of replays. A letter that was deleted counts as closed."""
    wanted = list(ids)
    rows = {row.id: row for row in await conn.execute(FOLLOW, {"ids": wanted})}
    closed = [letter for letter in wanted if letter not in rows or rows[letter].resolved]
    failed = [row.id for row in rows.values() if not row.resolved and not row.on_its_way]
    pending = [row.id for row in rows.values() if not row.resolved and row.on_its_way]
    return Followed(closed, sorted(failed), sorted(pending))


def letters_in_words(ids: Sequence[int]) -> str:
    """Return which letters a row of the audit log is about."""
    return f"{len(ids)} letters: {ids[0]} to {ids[-1]}" if len(ids) > 1 else f"letter {ids[0]}"
