"""Applying events to a real PostgreSQL without Kafka, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import HealthCheck, settings
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.batch import Applied, Applier, Batch
from service.apply.decode import decode
from service.apply.positions import set_position
from service.apply.targets import license_target, progress_target
from tests.laws.model import ADVANCED, LEVELED_UP, Meant
from tests.laws.records import START, TOPIC, as_record
from tests.laws.tables import empty_tables

LAWS = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
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
        applied = await self.appliers[kind].apply(batch, decode(records))
        self.rows[tp] = max(self.rows[tp], position)
        return applied

    def records(self, meant: Sequence[Meant]) -> list[ConsumerRecord]:
        made = []
        for one in meant:
            made.append(as_record(one, self.ends[one.kind]))
            self.ends[one.kind] += 1
        return made

    async def apply_all(self, meant: Sequence[Meant], cuts: Sequence[int] = ()) -> None:
        """Apply what is meant, in order, cut into batches; a batch holds one kind, as a subscriber's does."""
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
