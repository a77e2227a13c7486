"""Putting events into the outbox, inside the caller's transaction."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import Event

CHANNEL = "levelsync_outbox"
"""LISTEN here to hear of new rows at their commit."""

_ADD = text("""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT v.topic, v.key, v.value, v.headers
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]), CAST(:headers AS jsonb[]))
           WITH ORDINALITY AS v (topic, key, value, headers, number)
     ORDER BY v.number
""")
_NOTIFY = text("SELECT pg_notify(:channel, '')")


async def put(conn: AsyncConnection, events: Sequence[Event]) -> None:
    """Add events in their order; whoever listens hears of them when the transaction commits."""
    if not events:
        return
    records = [event.to_kafka() for event in events]
    await conn.execute(
        _ADD,
        {
            "topics": [record.topic for record in records],
            "keys": [record.key for record in records],
            "values": [record.value for record in records],
            "headers": [json.dumps([[name, value.decode()] for name, value in record.headers]) for record in records],
        },
    )
    await conn.execute(_NOTIFY, {"channel": CHANNEL})
