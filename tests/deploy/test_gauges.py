"""Gauges that alerts rely on show the database's state, so a restart changes none of them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.process.watch import set_gauges
from service.settings import Settings
from service.stream.positions import set_position
from service.telemetry.metrics import REGISTRY
from tests.support.runs import OneWorker
from tests.support.tables import fill

PAIR = (7, "PLAYER")


@pytest.fixture
def at_once(settings: Settings) -> Settings:
    return settings.model_copy(update={"reconcile_grace": timedelta(0)})


async def read(engine: AsyncEngine, name: str) -> float | None:
    """Set the gauges as every process does, and return one."""
    async with engine.connect() as conn:
        await set_gauges(conn, {}, "test", {})
    return REGISTRY.get_sample_value(name)


async def test_scans_that_leave_drift_are_counted_in_a_row(engine: AsyncEngine, at_once: Settings) -> None:
    """A run of one user is no complete scan."""
    one_worker = OneWorker(engine, at_once)
    await fill(engine, {PAIR: 5}, {PAIR: 5})

    async def scans_after(**request: object) -> float | None:
        await one_worker.finish(await one_worker.request(**request))
        return await read(engine, "levelsync_drift_scans")

    assert await scans_after() == 0
    async with engine.begin() as conn:
        await conn.execute(text("UPDATE user_licenses SET current_level = 4"))
    assert [await scans_after(), await scans_after(user_id=7), await scans_after()] == [1, 1, 2]
    assert await scans_after(direction="highest", dry_run=False, force=True) == 0


async def test_a_scan_that_confirms_nothing_is_neither_drift_nor_agreement(
    engine: AsyncEngine, at_once: Settings
) -> None:
    """While the appliers are away, the last known value stays."""
    one_worker = OneWorker(engine, at_once)
    await fill(engine, {PAIR: 5}, {PAIR: 4})
    await one_worker.finish(await one_worker.request())
    async with engine.begin() as conn:
        await conn.execute(
            text("""
                INSERT INTO levelsync.reconcile_runs (id, status, direction, dry_run, force, finished_at, counts)
                VALUES (gen_random_uuid(), 'completed', 'highest', true, false, clock_timestamp(),
                        '{"unconfirmed": 1, "left_by": []}')
            """)
        )
    assert await read(engine, "levelsync_drift_scans") == 1


async def test_what_only_a_person_can_decide_is_no_drift_that_wakes_somebody(
    engine: AsyncEngine, at_once: Settings
) -> None:
    """It is counted separately (law 8), because every scan would find it."""
    await fill(engine, {PAIR: 9}, {PAIR: 9})
    one_worker = OneWorker(engine, at_once)
    await one_worker.finish(await one_worker.request())
    assert await read(engine, "levelsync_drift_scans") == 0
    labels = {"kind": "out_of_range", "specialization": "PLAYER"}
    assert REGISTRY.get_sample_value("levelsync_drift_pairs", labels) == 1


async def test_the_oldest_event_in_the_outbox_has_an_age(engine: AsyncEngine) -> None:
    """By PostgreSQL's clock."""
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE levelsync.outbox"))
    assert await read(engine, "levelsync_outbox_oldest_seconds") == 0
    async with engine.begin() as conn:
        await conn.execute(
            text("""
                INSERT INTO levelsync.outbox (topic, created_at)
                VALUES ('x', now() - interval '10 minutes'), ('x', now())
            """)
        )
    assert 600 <= (await read(engine, "levelsync_outbox_oldest_seconds") or 0) < 660
    assert REGISTRY.get_sample_value("levelsync_outbox_pending") == 2


async def test_the_lag_of_a_topic_created_again_counts_every_record_of_it(engine: AsyncEngine) -> None:
    """The position row belongs to the deleted topic until a consumer starts the partition again."""
    partition = TopicPartition("progress.leveled-up", 0)
    async with engine.begin() as conn:
        await set_position(conn, partition, 9, "test", "deleted")
        await set_gauges(conn, {partition: 5}, "test", {partition.topic: "present"})
        assert _lag() == 5
        await set_gauges(conn, {partition: 11}, "test", {partition.topic: "deleted"})
        assert _lag() == 2


def _lag() -> float | None:
    where = {"topic": "progress.leveled-up", "partition": "0"}
    return REGISTRY.get_sample_value("levelsync_consumer_lag_records", where)
