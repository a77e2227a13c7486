"""Have the appliers applied everything up to a moment? (law 5). Pure, but for reading the position rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql


@dataclass(frozen=True, slots=True)
class Ends:
    """Both topics at one moment: the first and the end offset of every partition (``topic-partition``), the cluster."""

    cluster_id: str
    starts: Mapping[str, int]
    ends: Mapping[str, int]


class Topics(Protocol):
    """Who knows where the topics end (`service.reconcile.topics` asks Kafka)."""

    async def read(self) -> Ends:
        """The high watermarks, on fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """


async def read_applied(conn: AsyncConnection, cluster_id: str) -> dict[str, int]:
    """The position rows that count on this cluster."""
    rows = await conn.execute(sql.APPLIED_OFFSETS)
    return {f"{r.topic}-{r.partition}": r.next_offset for r in rows if r.cluster_id in {"", cluster_id}}


def reached(goal: Mapping[str, int], now: Ends, applied: Mapping[str, int]) -> bool:
    """Whether every partition is applied up to `goal`.

    One that holds no record is caught up. A row beyond the partition's present end counts on a topic that was made
    anew since: it says nothing until its consumer has started it again.
    """
    return all(
        now.starts.get(partition, 0) >= end or end <= applied.get(partition, 0) <= now.ends.get(partition, 0)
        for partition, end in goal.items()
    )
