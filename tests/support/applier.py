"""Batches of events on a real PostgreSQL, without Kafka."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import settings
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Direction
from service.apply.batch import Applied, Applier
from service.apply.call import license_target, progress_target
from service.faults import Fault, read_fault
from service.settings import Settings
from service.stream.positions import Batch, set_position
from service.sync import ProgressLicenseSyncService
from service.sync.results import SyncResult
from tests.support.model import ADVANCED, LEVELED_UP, Meant
from tests.support.records import START, TOPIC, as_record
from tests.support.runs import SCANS, OneWorker
from tests.support.tables import empty_tables

LAWS = settings(SCANS, max_examples=40)
TARGETS = {LEVELED_UP: license_target({}), ADVANCED: progress_target({})}
SAMPLE_USERS = set(range(1, 201))


class Partitions:
    """Applies records as two consumers would: one partition a kind, batch by batch, with positions."""

    def __init__(self, engine: AsyncEngine, apply_since: datetime | None = None) -> None:
        self.engine = engine
        self.appliers = {kind: Applier(engine, target, apply_since) for kind, target in TARGETS.items()}
        self.rows: dict[TopicPartition, int] = {}
        self.ends = dict.fromkeys(TARGETS, 0)

    async def begin(self) -> Partitions:
        async with self.engine.begin() as conn:
            for kind in TARGETS:
                await set_position(conn, TopicPartition(TOPIC[kind], 0), 0, "")
                self.rows[TopicPartition(TOPIC[kind], 0)] = 0
        return self

    async def apply(self, kind: str, records: Sequence[ConsumerRecord]) -> Applied:
        tp = TopicPartition(TOPIC[kind], 0)
        position = records[-1].offset + 1
        batch = Batch(list(records), {tp: self.rows[tp]}, {tp: position})
        applied = await self.appliers[kind].apply(batch)
        self.rows[tp] = max(self.rows[tp], position)
        return applied

    def records(self, meant: Sequence[Meant]) -> list[ConsumerRecord]:
        made = []
        for one in meant:
            made.append(as_record(one, self.ends[one.kind]))
            self.ends[one.kind] += 1
        return made

    async def apply_all(self, meant: Sequence[Meant], cuts: Sequence[int] = ()) -> None:
        """Apply events in order, cut into batches. A batch contains one kind, as a subscriber's does."""
        records = self.records(meant)
        edges = [0, *sorted({cut % (len(records) + 1) for cut in cuts}), len(records)]
        for begin, end in pairwise(edges):
            for kind in TARGETS:
                part = [r for m, r in zip(meant[begin:end], records[begin:end], strict=True) if m.kind == kind]
                if part:
                    await self.apply(kind, part)


async def fresh(engine: AsyncEngine, apply_since: datetime | None = None) -> Partitions:
    await empty_tables(engine)
    return await Partitions(engine, apply_since).begin()


def one(kind: str = LEVELED_UP, to_level: int = 3, minutes: int = 0, **changes: object) -> Meant:
    at = START + timedelta(minutes=minutes)
    return replace(Meant(kind, 1, "PLAYER", to_level, at, "/test", f"e{minutes}"), **changes)  # type: ignore[arg-type]


class NotApplied(Exception):  # noqa: N818 - a fact about a batch, not an error of the test
    """Every attempt to apply a batch failed. `fault` is how the service classifies the last failure."""

    def __init__(self, fault: Fault) -> None:
        super().__init__(f"{fault.kind.name}: {fault.message}")
        self.fault = fault


def rise(
    user: int, to_level: int, specialization: str = "PLAYER", kind: str = LEVELED_UP, at: datetime = START
) -> Meant:
    """Return one event. Its id is unique for the pair, kind and level."""
    return Meant(kind, user, specialization, to_level, at, "/test", f"{kind}-{user}-{specialization}-{to_level}")


class Events:
    """Applies batches of events as a consumer does, with a few attempts."""

    def __init__(self, engine: AsyncEngine, through: AsyncEngine | None = None) -> None:
        """Apply batches with the engine `through`, if it is not `engine`."""
        self._engine = engine
        self._partitions = Partitions(through or engine)

    async def begin(self) -> Events:
        """Create the position rows."""
        begun = await Partitions(self._engine).begin()
        self._partitions.rows = begun.rows
        return self

    async def apply(self, *meant: Meant, attempts: int = 3) -> None:
        """Apply events, all of one kind, as one batch of one partition.

        Raises:
            NotApplied: every attempt failed. A consumer would retry for ever.
        """
        records = self._partitions.records(meant)
        for left in reversed(range(attempts)):
            try:
                await self._partitions.apply(meant[0].kind, records)
            except Exception as error:
                if not left:
                    raise NotApplied(read_fault(error)) from error
            else:
                return


async def sync(engine: AsyncEngine, user: int, direction: Direction, specialization: str = "PLAYER") -> SyncResult:
    """Run `levelsync sync USER --specialization X --direction D`."""
    return await ProgressLicenseSyncService(engine).sync_pair(user, specialization, direction)


async def heal(engine: AsyncEngine, settings: Settings, timeout: float = 60, **request: Any) -> dict[str, Any]:  # noqa: ASYNC109 - a test's own bound
    """Run `levelsync reconcile --execute --force` without a grace time; returns the report.

    Raises:
        AssertionError: the run has not ended within `timeout` seconds.
    """
    one_worker = OneWorker(engine, settings.model_copy(update={"reconcile_grace": timedelta(0)}))
    return await one_worker.finish(await one_worker.request(dry_run=False, force=True, **request), timeout)


def again(meant: Sequence[Meant]) -> list[Meant]:
    """Return the same events with other ids, as a publisher that repeats itself sends them."""
    return [replace(one, id=f"{one.id}-again") for one in meant]
