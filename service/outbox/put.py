"""Write events into the outbox, in the transaction that they describe. Also the outbox's rows and statements."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import Event
from service.stream.records import Header, Stored, can_be_sent, header_from_json

CHANNEL = "levelsync_outbox"

PUT = text("""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT e.topic, e.key, e.value, CAST(e.headers AS jsonb)
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]), CAST(:headers AS text[]))
           WITH ORDINALITY AS e (topic, key, value, headers, number)
     ORDER BY e.number
""")
"""Add events. PostgreSQL assigns the ids after the sort, so that they have the order of the arrays."""

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")
"""Wake the relay at commit. Notify once in each call, because commits that notify wait for each other."""

TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended('levelsync outbox relay', 0))")
"""True in the one session that has the lock. The session keeps it until it ends."""

SET_KEEPALIVES = text("""
    SELECT set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false)
""")
"""Set TCP keepalives, so that PostgreSQL ends this session 9 s after its machine disappears, not two hours after."""

READ = text("""
    SELECT b.id, b.topic, b.key, b.value, b.headers
      FROM (SELECT s.*, sum(s.bytes) OVER (ORDER BY s.id) - s.bytes AS bytes_before
              FROM (SELECT o.*, coalesce(octet_length(o.key), 0) + coalesce(octet_length(o.value), 0)
                                + octet_length(CAST(o.headers AS text)) AS bytes
                      FROM levelsync.outbox o
                     WHERE o.id <> ALL(CAST(:without_rows AS bigint[]))
                       AND o.topic <> ALL(CAST(:without_topics AS text[]))
                     ORDER BY o.id LIMIT :rows) s) b
     WHERE b.bytes_before < :bytes
     ORDER BY b.id
""")
"""Read the oldest events: at most `rows` of them, ending with the one that reaches `bytes`."""

DELETE = text("DELETE FROM levelsync.outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
"""Delete exactly these rows, because a row with a lower id may have been committed since they were read."""


@dataclass(frozen=True, slots=True, eq=False)
class OutboxRow:
    """One event of the outbox. Rows compare by identity, so that they can be keys of a dictionary."""

    id: int
    topic: str
    key: bytes | None
    value: bytes | None
    """None for a tombstone, which is a replayed dead letter."""
    headers: list[Header]


def headers_of(stored: Iterable[Stored]) -> list[Header]:
    """Return a row's headers without those that no producer can write. levelsync uses none of these."""
    return [header for header in map(header_from_json, stored) if can_be_sent(header)]


def waves(rows: Iterable[OutboxRow]) -> list[list[OutboxRow]]:
    """Split rows into waves. A wave has at most one row of each topic and key, and rows of one key keep their order.

    A wave is sent after all of the previous wave has arrived, so that no row overtakes an earlier row of its key when a
    part of a wave fails. Rows without a key have no order.
    """
    seen: Counter[tuple[str, bytes]] = Counter()
    split: list[list[OutboxRow]] = []
    for row in rows:
        number = 0
        if row.key is not None:
            number = seen[row.topic, row.key]
            seen[row.topic, row.key] += 1
        if number == len(split):
            split.append([])
        split[number].append(row)
    return split


async def put(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Write events into the outbox in their order, and wake the relay when the caller's transaction commits.

    Events of one key reach Kafka in the order of their transactions if a later transaction calls `put` only after the
    earlier one has committed. A caller that needs this order must lock what the key names until its commit: the pair's
    rows or the run's row. Concurrent transactions have no order.
    """
    if not events:
        return
    records = [event.to_kafka() for event in events]
    values = {
        "topics": [record.topic for record in records],
        "keys": [record.key for record in records],
        "values": [record.value for record in records],
        "headers": [json.dumps([[name, value.decode()] for name, value in record.headers]) for record in records],
    }
    await conn.execute(PUT, values)
    await conn.execute(NOTIFY)
