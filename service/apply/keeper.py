"""Keeps a consumer's positions in PostgreSQL: where to begin, and offsets that deliver no record (law 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import structlog
from aiokafka import TopicPartition
from sqlalchemy.ext.asyncio import AsyncEngine

from service import metrics
from service.apply import positions
from service.apply.batch import Batch
from service.apply.lost import ask_for_reconcile
from service.apply.positions import Start, starting_point

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DatabaseKeeper:
    """`service.kafka.consumer.PositionKeeper` on the table `levelsync.applied_offsets`."""

    engine: AsyncEngine
    cluster_id: str

    async def start(
        self,
        committed: Mapping[TopicPartition, int | None],
        log_starts: Mapping[TopicPartition, int],
        read_log_ends: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
    ) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        """Seek positions and position rows of a new assignment; writes rows that start anew or are missing."""
        async with self.engine.begin() as conn:
            stored = await positions.read_positions(conn, committed)
            log_ends = await read_log_ends()
            starts = {
                tp: starting_point(committed[tp], stored.get(tp), self.cluster_id, log_starts[tp], log_ends[tp])
                for tp in sorted(committed)
            }
            for partition, start in starts.items():
                found = stored.get(partition)
                if found is None or found.next_offset != start.row or found.cluster_id != self.cluster_id:
                    await positions.set_position(conn, partition, start.row, self.cluster_id)
                if start.lost:
                    await ask_for_reconcile(conn, partition, start.seek)
        self._report_lost(starts)
        self._report_anew(starts)
        return {tp: start.seek for tp, start in starts.items()}, {tp: start.row for tp, start in starts.items()}

    async def store_idle(self, expected: Mapping[TopicPartition, int], moved: Mapping[TopicPartition, int]) -> None:
        """Check the rows like a batch's; store positions that moved without delivering a record."""
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, Batch((), expected, moved))

    def _report_lost(self, starts: Mapping[TopicPartition, Start]) -> None:
        for at, start in starts.items():
            if start.lost:
                log.error("retention took records unread", topic=at.topic, lost=start.lost, resumed_at=start.seek)
                metrics.RECORDS_LOST.labels(at.topic, str(at.partition)).inc(start.lost)

    def _report_anew(self, starts: Mapping[TopicPartition, Start]) -> None:
        anew = sorted(f"{tp.topic}-{tp.partition}" for tp, start in starts.items() if start.anew)
        if anew:
            log.info("positions start anew", partitions=anew, cluster_id=self.cluster_id)
