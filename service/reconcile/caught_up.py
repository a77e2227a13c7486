"""Have the appliers applied everything up to a moment? (law 5). Pure, but for reading the position rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply.positions import differ
from service.reconcile import sql


@dataclass(frozen=True, slots=True)
class Ends:
    """Both topics at one moment: the first and the end offset of every partition (``topic-partition``), the cluster."""

    cluster_id: str
    starts: Mapping[str, int]
    ends: Mapping[str, int]
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic; '' or absent where Kafka gives none."""


class Topics(Protocol):
    """Who knows where the topics end (`service.reconcile.topics` asks Kafka)."""

    async def read(self) -> Ends:
        """The high watermarks, on fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """


async def read_applied(conn: AsyncConnection, now: Ends) -> dict[str, int]:
    """Read the position rows that count on this cluster and these topics."""
    rows = await conn.execute(sql.APPLIED_OFFSETS)
    return {
        f"{r.topic}-{r.partition}": r.next_offset
        for r in rows
        if r.cluster_id in {"", now.cluster_id} and not differ(r.topic_id, now.topic_ids.get(r.topic, ""))
    }


def reached(goal: Mapping[str, int], now: Ends, applied: Mapping[str, int]) -> bool:
    """Whether every partition is applied up to `goal`.

    One that holds no record is caught up. A row beyond the partition's present end counts on a topic that was
    created again since: it says nothing until its consumer has started it again.
    """
    return all(
        now.starts.get(partition, 0) >= end or end <= applied.get(partition, 0) <= now.ends.get(partition, 0)
        for partition, end in goal.items()
    )
