"""How far each partition is applied, for those who compare it with its end."""

from __future__ import annotations

from aiokafka import TopicPartition
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.tables import applied_offsets


async def applied_positions(conn: AsyncConnection, cluster_id: str) -> dict[TopicPartition, int]:
    """Read the next offset to apply of every partition that was ever applied.

    Rows that count on another Kafka cluster say nothing about this one (law 3) and are left out.
    """
    query = select(applied_offsets.c.topic, applied_offsets.c.partition, applied_offsets.c.next_offset).where(
        applied_offsets.c.cluster_id.in_(("", cluster_id))
    )
    rows = await conn.execute(query)
    return {TopicPartition(topic, partition): offset for topic, partition, offset in rows}
