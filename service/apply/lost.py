"""What retention took unread no event will bring back: a reconcile is asked for, once (law 3)."""

from __future__ import annotations

import uuid

from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncConnection

from events import ReconcileRequested
from service.outbox.put import put

_NAMESPACE = uuid.UUID("6f0c2b0e-3a7e-4f55-9a0e-8f2f5b0d7c11")


async def ask_for_reconcile(conn: AsyncConnection, partition: TopicPartition, resumed_at: int) -> None:
    """Put a ReconcileRequested (`highest`, dry run) into the outbox; its id is the same for the same loss.

    The caller stores `resumed_at` in the position row in the same transaction: a loss is what lies between the two, so
    that none is found twice.
    """
    name = f"{partition.topic}-{partition.partition}-{resumed_at}"
    request_id = str(uuid.uuid5(_NAMESPACE, name))
    await put(conn, [ReconcileRequested(direction="highest", requested_by=f"records lost in {name}", id=request_id)])
