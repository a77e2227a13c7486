"""What retention took unread no event will bring back: a reconcile is asked for, once (law 3)."""

from __future__ import annotations

import uuid

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncConnection

from events import ReconcileRequested
from service.database.tables import outbox

_NAMESPACE = uuid.UUID("6f0c2b0e-3a7e-4f55-9a0e-8f2f5b0d7c11")


async def ask_for_reconcile(conn: AsyncConnection, partition: TopicPartition, resumed_at: int) -> None:
    """Put a ReconcileRequested (`highest`, dry run) into the outbox; its id is the same for the same loss."""
    name = f"{partition.topic}-{partition.partition}-{resumed_at}"
    request = ReconcileRequested(
        direction="highest", requested_by=f"records lost in {name}", id=str(uuid.uuid5(_NAMESPACE, name))
    )
    record = request.to_kafka()
    headers = [[key, value.decode()] for key, value in record.headers]
    await conn.execute(outbox.insert().values(topic=record.topic, key=record.key, value=record.value, headers=headers))
