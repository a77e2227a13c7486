"""The role `reconcile`: it creates runs for requests, and works on the ranges named in messages."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import (
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_REQUESTED_TOPIC,
    ContractViolation,
    Reason,
    Received,
    ReconcileChunk,
    ReconcileRequested,
    read,
)
from service.apply import dead_letters
from service.apply.role import one_joins_first, request_reconcile, running_broker
from service.apply.subscriber import subscribe
from service.core.decode import RawRecord, first_timestamp
from service.core.outcomes import Cut, DeadLetter
from service.levels import read_curriculum
from service.reconcile import sql
from service.reconcile.chunks import Chunks
from service.reconcile.confirm import KafkaTopics
from service.reconcile.runs import finish
from service.reconcile.steps import Steps, take_due_steps
from service.reconcile.values import KEPT, run_id_of, run_of
from service.settings import Settings
from service.stream import positions
from service.stream.background import in_background
from service.stream.broker import make_broker
from service.stream.positions import Batch, DatabasePositionStore
from service.telemetry.health import Health


async def open_runs(conn: AsyncConnection, requests: Sequence[tuple[int, Received]]) -> list[DeadLetter]:
    """Create one run for each request. A request for an unknown specialization becomes a dead letter.

    The run of a request that is older than `KEPT` may have been deleted. Such a request gets a run that is `expired`.
    """
    curriculum = await read_curriculum(conn)
    letters: list[DeadLetter] = []
    for index, received in requests:
        request = received.event
        assert isinstance(request, ReconcileRequested)  # noqa: S101 - the topic has one type, which `read` checked
        canonical = None if request.specialization is None else curriculum.canonical(request.specialization)
        if request.specialization is not None and canonical is None:
            detail = f"there is no specialization {request.specialization!r}"
            letters.append(DeadLetter(index, Reason.UNKNOWN_SPECIALIZATION, detail))
            continue
        values: dict[str, Any] = {
            "id": run_id_of(received.id, received.source),
            "direction": request.direction,
            "dry_run": request.dry_run,
            "force": request.force,
            "specialization": canonical,
            "user_id": request.user_id,
            "max_lowered": request.max_lowered,
            "requested_by": request.requested_by,
        }
        added = (await conn.execute(sql.ADD_RUN, values)).one_or_none()
        if added is None:
            continue
        await _audit_request(conn, values, received)
        if await _has_expired(conn, received):
            why = f"requested on {received.occurred_at:%Y-%m-%d}, but runs are kept for {KEPT.days} days only"
            await finish(conn, run_of(added), "expired", why)
    return letters


async def _has_expired(conn: AsyncConnection, received: Received) -> bool:
    values = {"occurred_at": received.occurred_at, "kept": KEPT}
    return bool((await conn.execute(sql.HAS_EXPIRED, values)).scalar_one())


async def _audit_request(conn: AsyncConnection, run: dict[str, Any], received: Received) -> None:
    """Write a request by event into the audit log. The API and the page have written theirs already."""
    arguments = {name: value for name, value in run.items() if name not in {"id", "requested_by"}}
    values = {
        "subject": run["requested_by"] or received.source,
        "arguments": json.dumps(arguments | {"run_id": str(run["id"])}),
        "detail": f"event {received.id} from {received.source}",
        "run_id": str(run["id"]),
    }
    await conn.execute(sql.RECORD_REQUEST, values)


log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Decoded:
    """A decoded batch of a `sync.*` topic: the valid events with their indexes, and the dead letters."""

    received: list[tuple[int, Received]]
    letters: list[DeadLetter]


def decode(records: Sequence[RawRecord]) -> Decoded:
    """Decode every record. An invalid one becomes a dead letter and does not affect the others (law 4)."""
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


def _timestamp(record: RawRecord) -> int:
    """Return the record's timestamp, to compare it with the event's time. It is 0 where only levelsync writes.

    A process's clock may be ahead of the clock of a broker that sets timestamps (LogAppendTime).
    """
    return 0 if record.topic == RECONCILE_CHUNKS_TOPIC else first_timestamp(record)


@dataclass(frozen=True, slots=True)
class RequestWork:
    """Creates a run for each request of `sync.reconcile-requested` (`service.apply.subscriber.TopicWork`)."""

    engine: AsyncEngine
    woken: asyncio.Event = field(default_factory=asyncio.Event)
    """Set after runs were created, because their first step is due."""
    apply_rest: None = None

    async def apply(self, batch: Batch) -> list[DeadLetter]:
        """Store runs, dead letters and positions in one transaction (law 3). Return the letters."""
        decoded = decode(batch.records)
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, batch)
            claims = dead_letters.claims(batch.records)
            discarded = await dead_letters.discarded(conn, batch.records, claims)
            wanted = [(index, received) for index, received in decoded.received if index not in discarded]
            letters = decoded.letters + await open_runs(conn, wanted)
            await dead_letters.store(conn, batch.records, range(len(batch.records)), letters, claims)
        self.woken.set()
        return letters

    def report(self, batch: Batch, applied: list[DeadLetter], seconds: float) -> None:
        """Log one line for a batch."""
        numbers = {"records": len(batch.records), "dead_letters": len(applied), "seconds": round(seconds, 4)}
        log.info("reconcile requests read", **numbers)


@dataclass(frozen=True, slots=True)
class ChunkWork:
    """Works on the ranges of `sync.reconcile-chunks`, each in separate transactions."""

    engine: AsyncEngine
    chunks: Chunks
    apply_rest: None = None

    async def apply(self, batch: Batch) -> int:
        """Work on every range of the batch, then store dead letters and positions. Return the number of ranges.

        When a batch is repeated, its ranges are done already.
        """
        decoded = decode(batch.records)
        await self.chunks.work(*(cast("ReconcileChunk", received.event) for _, received in decoded.received))
        async with self.engine.begin() as conn:
            await positions.check_and_move(conn, batch)
            claims = dead_letters.claims(batch.records)
            await dead_letters.store(conn, batch.records, range(len(batch.records)), decoded.letters, claims)
        return len(decoded.received)

    def report(self, batch: Batch, applied: int, seconds: float) -> None:
        """Log one line for a batch, at level debug."""
        log.debug("ranges done", records=len(batch.records), ranges=applied, seconds=round(seconds, 4))


RANGES_A_BATCH = 8
"""Ranges of one batch. Their number is small, so that a run spreads over all workers."""
WORKERS = 2
"""Workers in one process. One compares in PostgreSQL while the other stores what it found."""


@contextlib.asynccontextmanager
async def reconcile_role(
    engine: AsyncEngine, settings: Settings, health: Health, cluster_id: str
) -> AsyncIterator[Callable[[], list[Any]]]:
    """Run the reconciler, and yield a function that returns its consumers, for the watchdog."""
    topics = KafkaTopics(settings)
    steps = Steps(settings, topics)
    store = DatabasePositionStore(engine, cluster_id, request_reconcile)
    may_read = asyncio.Event()
    broker = make_broker(settings, store, may_read)
    chunk_settings = settings.model_copy(update={"batch_max_records": RANGES_A_BATCH})
    work = ChunkWork(engine, Chunks(engine, settings, steps))
    group_id = f"{settings.kafka_group_id}-reconcile"
    requests = RequestWork(engine, steps.woken)
    subscribers = [
        subscribe(broker, RECONCILE_REQUESTED_TOPIC, requests, settings, health, group_id=group_id),
        *(
            subscribe(broker, RECONCILE_CHUNKS_TOPIC, work, chunk_settings, health, group_id=group_id)
            for _ in range(WORKERS)
        ),
    ]
    one_first = await one_joins_first(store)
    async with (
        topics,
        running_broker(broker, subscribers, health, may_read, one_first=one_first) as consumers,
        in_background(partial(take_due_steps, engine, steps, health), "reconcile", health),
    ):
        yield consumers
