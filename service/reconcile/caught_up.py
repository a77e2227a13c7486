"""Find out whether the appliers have reached the ends of the topics (law 5)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol

from aiokafka.errors import KafkaError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.reconcile import sql
from service.settings import Settings
from service.stream.lag import EndOffsets
from service.stream.positions import differ


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the end offset of every partition (``topic-partition``) of both topics at one moment."""

    cluster_id: str
    starts: Mapping[str, int]
    ends: Mapping[str, int]
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic. It is '' or absent when Kafka reports none."""


class Topics(Protocol):
    """A source of the topics' end offsets (`KafkaTopics` reads them from Kafka)."""

    async def read(self) -> Ends:
        """Return the high watermarks, from fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """


async def read_applied(conn: AsyncConnection, now: Ends) -> dict[str, int]:
    """Read the position rows that belong to this cluster and to these topics."""
    rows = await conn.execute(sql.APPLIED_OFFSETS)
    return {
        f"{r.topic}-{r.partition}": r.next_offset
        for r in rows
        if r.cluster_id in {"", now.cluster_id} and not differ(r.topic_id, now.topic_ids.get(r.topic, ""))
    }


def reached(goal: Mapping[str, int], now: Ends, applied: Mapping[str, int]) -> bool:
    """Return whether every partition is applied up to `goal`.

    A partition without records counts as applied. A position beyond the present end belongs to an earlier topic of the
    same name. It does not count until a consumer has started the new topic.
    """
    return all(
        now.starts.get(partition, 0) >= end or end <= applied.get(partition, 0) <= now.ends.get(partition, 0)
        for partition, end in goal.items()
    )


class KafkaTopics:
    """Reads `Topics` from Kafka. It reuses its clients between reads, and replaces them after a fault."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offsets: EndOffsets | None = None

    async def __aenter__(self) -> KafkaTopics:
        """Connect, so that no run waits for it. If Kafka is away, the first read connects."""
        with contextlib.suppress(KafkaError, OSError):
            await self.read()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets.__aexit__(kind, error, trace)

    async def read(self) -> Ends:
        """Return the high watermarks and the first offsets, from fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        try:
            if self._offsets is None:
                self._offsets = await EndOffsets(self._settings).__aenter__()
            return await _read(self._offsets)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise


async def _read(offsets: EndOffsets) -> Ends:
    """Read offsets between two equal answers about the topics' ids, so that they belong to these topics."""
    while True:
        cluster = await offsets.read_cluster()
        topic_ids = await offsets.read_topic_ids(cluster)
        ends = await offsets.read_of(cluster)
        starts = await offsets.read_starts(list(ends))
        if await offsets.read_topic_ids(cluster) == topic_ids:
            return Ends(
                cluster.id,
                {f"{tp.topic}-{tp.partition}": at for tp, at in starts.items()},
                {f"{tp.topic}-{tp.partition}": at for tp, at in ends.items()},
                topic_ids,
            )
