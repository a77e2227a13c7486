"""Events on their way to Kafka, written in the transaction that they tell of."""

from __future__ import annotations

import json
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncConnection

from events import Event
from service.outbox import sql


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
    await conn.execute(sql.PUT, values)
    await conn.execute(sql.NOTIFY)
