"""Write events into the outbox, in the transaction that they describe; its rows and statements."""

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
"""Add events; PostgreSQL gives the ids after the sort, so their order is that of the arrays."""

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")
"""Tell the relay, at commit. Once a call: commits that notify wait for each other."""

TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended('levelsync outbox relay', 0))")
"""True for the one session of the database that has the lock, until the session ends."""

NOTICE_A_VANISHED_CLIENT = text("""
    SELECT set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false)
""")
"""Let PostgreSQL end this session within 9 s of its machine's disappearance: by default that takes two hours."""

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
"""The oldest events: at most so many, and no more once they have reached `bytes`."""

DELETE = text("DELETE FROM levelsync.outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
"""Remove exactly these: a lower id may have been committed since they were read."""


@dataclass(frozen=True, slots=True, eq=False)
class Row:
    """One event of the outbox, itself and not its equal: it can be a key whatever it holds."""

    id: int
    topic: str
    key: bytes | None
    value: bytes | None
    """None for a tombstone that was a dead letter and is replayed."""
    headers: list[Header]


def headers_of(stored: Iterable[Stored]) -> list[Header]:
    """A row's headers, those with a name that no producer can write left out: none of them has a meaning here."""
    return [header for header in map(header_from_json, stored) if can_be_sent(header)]


def waves(rows: Iterable[Row]) -> list[list[Row]]:
    """Cut rows into waves: none holds two of one topic and key, and those of one key stand in waves in their order.

    A wave leaves when the one before has arrived whole, so that nothing of a key overtakes what came before it,
    whatever part of a wave fails. Rows without a key have no order.
    """
    met: Counter[tuple[str, bytes]] = Counter()
    cut: list[list[Row]] = []
    for row in rows:
        number = 0
        if row.key is not None:
            number = met[row.topic, row.key]
            met[row.topic, row.key] += 1
        if number == len(cut):
            cut.append([])
        cut[number].append(row)
    return cut


async def put(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Write events into the outbox, in their order, and wake the relay when the caller's transaction commits.

    Events of one key reach Kafka in the order of their transactions where a later transaction puts only after an
    earlier one has committed. Whoever needs that order holds a lock on what the key stands for until the commit (the
    pair's rows, the run's row); transactions that put side by side have no order to keep.
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
