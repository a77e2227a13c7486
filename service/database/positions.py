"""How far each partition is applied, for those who compare it with its end."""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from service.database.tables import applied_offsets


async def applied_positions(
    conn: AsyncConnection, cluster_id: str, topic_ids: Mapping[str, str]
) -> dict[TopicPartition, int]:
    """Read the next offset to apply of every partition that was ever applied.

    Rows that count on another Kafka cluster, or on a deleted topic of the same name, say nothing about these topics
    (law 3) and are left out. An id that is not known ('' or absent) leaves no row out.
    """
    query = select(
        applied_offsets.c.topic, applied_offsets.c.partition, applied_offsets.c.next_offset, applied_offsets.c.topic_id
    ).where(applied_offsets.c.cluster_id.in_(("", cluster_id)))
    return {
        TopicPartition(topic, partition): offset
        for topic, partition, offset, topic_id in await conn.execute(query)
        if not topic_id or topic_ids.get(topic, "") in {"", topic_id}
    }
