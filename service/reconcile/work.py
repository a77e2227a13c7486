"""The work of the role `reconcile`: requests become runs, messages of ranges become work on ranges."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from events import RECONCILE_CHUNKS_TOPIC, ContractViolation, Reason, Received, ReconcileChunk, read
from service.apply import dead_letters, positions, replayed
from service.apply.decode import first_timestamp
from service.apply.outcomes import Cut, DeadLetter
from service.apply.positions import Batch
from service.apply.quick import Record
from service.reconcile.chunks import Chunks
from service.reconcile.requests import open_runs

log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Decoded:
    """A batch of a `sync.*` topic: what keeps the contract, by index, and what does not."""

    received: list[tuple[int, Received]]
    letters: list[DeadLetter]


def decode(records: Sequence[Record]) -> Decoded:
    """Read every record; a bad one becomes a dead letter and its neighbours go on (law 4)."""
    decoded = Decoded([], [])
    for index, record in enumerate(records):
        if isinstance(record.value, Cut):
            decoded.letters.append(DeadLetter(index, Reason.TOO_LARGE, record.value.about))
            continue
        try:
            received = read(record.topic, record.value, record.headers, _timestamp(record))
            decoded.received.append((index, received))
        except ContractViolation as violation:
            decoded.letters.append(DeadLetter(index, violation.reason, violation.detail))
    return decoded


def _timestamp(record: Record) -> int:
    """When the record was written, for comparison with its own time; 0, for none, where only the service writes.

    The clock of a service may be ahead of a broker's that stamps the records (LogAppendTime).
    """
    return 0 if record.topic == RECONCILE_CHUNKS_TOPIC else first_timestamp(record)


@dataclass(frozen=True, slots=True)
class RequestWork:
    """`sync.reconcile-requested`: a run's row for each request (`service.apply.subscriber.Work`)."""

    engine: AsyncEngine
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when a run was opened: its first step is due."""

    async def apply(self, batch: Batch) -> list[DeadLetter]:
        """Runs, dead letters and positions in one transaction (law 3); returns the letters."""
        decoded = decode(batch.records)
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, batch)
            claims = replayed.claims(batch.records)
            unwanted = await replayed.discarded(conn, batch.records, claims)
            wanted = [(index, received) for index, received in decoded.received if index not in unwanted]
            letters = decoded.letters + await open_runs(conn, wanted)
            await dead_letters.keep(conn, batch.records, range(len(batch.records)), letters, claims)
        self.woken.set()
        return letters

    def report(self, batch: Batch, applied: list[DeadLetter], seconds: float) -> None:
        """One line a batch."""
        log.info("reconcile requests taken", records=len(batch.records), dead_letters=len(applied), seconds=seconds)


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """`sync.reconcile-chunks`: work on ranges, each in transactions of its own."""

    engine: AsyncEngine
    chunks: Chunks

    async def apply(self, batch: Batch) -> int:
        """Work on every range of the batch, then store dead letters and positions; returns the number of ranges.

        A batch that is repeated finds its ranges done.
        """
        decoded = decode(batch.records)
        await self.chunks.work(*(cast("ReconcileChunk", received.event) for _, received in decoded.received))
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, batch)
            claims = replayed.claims(batch.records)
            await dead_letters.keep(conn, batch.records, range(len(batch.records)), decoded.letters, claims)
        return len(decoded.received)

    def report(self, batch: Batch, applied: int, seconds: float) -> None:
        """One line a batch, for whoever debugs."""
        log.debug("ranges done", records=len(batch.records), ranges=applied, seconds=seconds)
