"""Keeps a consumer's positions in PostgreSQL: where to begin, and offsets that deliver no record (law 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import astuple, dataclass
from types import MappingProxyType
from typing import Any

import structlog
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service import metrics
from service.apply import positions
from service.apply.positions import Batch, Log, Start, Stored, starting_point
from service.database.positions import applied_positions

log = structlog.get_logger(__name__)
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
AskForReconcile = Callable[[AsyncConnection, TopicPartition, int], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class DatabaseKeeper:
    """`service.kafka.consumer.PositionKeeper` on the table `levelsync.applied_offsets`."""

    engine: AsyncEngine
    cluster_id: str
    ask_for_reconcile: AskForReconcile
    """What is done about a loss, in the transaction that stores where a partition goes on."""

    async def is_new(self) -> bool:
        """Return whether no position in this cluster is kept: the consumer groups are new there too.

        False where PostgreSQL does not answer: only the time of a start depends on it.
        """
        try:
            async with self.engine.connect() as conn:
                return not await applied_positions(conn, self.cluster_id, {})
        except Exception:  # noqa: BLE001 - as above
            return False

    async def start(
        self,
        committed: Mapping[TopicPartition, int | None],
        log_starts: Mapping[TopicPartition, int],
        read_log_ends: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        *,
        topic_ids: Mapping[str, str] = _NOTHING,
        cut_at: Mapping[TopicPartition, int] = _NOTHING,
    ) -> dict[TopicPartition, Start]:
        """Decide where the partitions of a new assignment begin; write rows that restart, change or are missing."""
        async with self.engine.begin() as conn:
            stored = await positions.read_positions(conn, committed)
            log_ends = await read_log_ends()
            starts = {
                tp: starting_point(
                    committed[tp],
                    stored.get(tp),
                    Log(self.cluster_id, topic_ids.get(tp.topic, ""), log_starts[tp], log_ends[tp], cut_at.get(tp)),
                )
                for tp in sorted(committed)
            }
            for partition, start in starts.items():
                row = Stored(start.row, self.cluster_id, topic_ids.get(partition.topic, ""), start.epoch)
                if stored.get(partition) != row:
                    await positions.set_position(conn, partition, *astuple(row))
                if start.lost:
                    await self.ask_for_reconcile(conn, partition, start.seek)
        self._report_lost(starts)
        self._report_anew(starts)
        return starts

    async def store_idle(self, batch: Batch) -> None:
        """Check the rows like a batch's; store positions that moved without delivering a record."""
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, batch)

    def _report_lost(self, starts: Mapping[TopicPartition, Start]) -> None:
        for at, start in starts.items():
            if start.lost:
                log.error("retention took records unread", topic=at.topic, lost=start.lost, resumed_at=start.seek)
                metrics.RECORDS_LOST.labels(at.topic, str(at.partition)).inc(start.lost)

    def _report_anew(self, starts: Mapping[TopicPartition, Start]) -> None:
        anew = sorted(f"{tp.topic}-{tp.partition}" for tp, start in starts.items() if start.anew)
        if anew:
            log.info("positions start anew", partitions=anew, cluster_id=self.cluster_id)
