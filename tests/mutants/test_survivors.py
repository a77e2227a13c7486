"""Tests for mutants of the service that once survived. `make mutants` applies each and sees its test fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.role import request_reconcile
from service.reconcile import steps
from service.reconcile.steps import take_one
from service.settings import Settings
from service.stream.consumer import LevelConsumer
from service.stream.positions import Batch, DatabasePositionStore, Evicted, set_position
from tests.support.applier import Partitions, rise, sync
from tests.support.model import LEVELED_UP
from tests.support.runs import NoTopics, OneWorker, until_step
from tests.support.tables import empty_tables, execute, fill, licenses, read, somebody_waits
from tests.support.waiting import eventually

PAIR = (1, "PLAYER")
TOPIC = "progress.leveled-up"
FIRST, SECOND = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)


async def put_positions(engine: AsyncEngine, positions: Mapping[TopicPartition, int], cluster: str = "test") -> None:
    async with engine.begin() as conn:
        for partition, offset in positions.items():
            await set_position(conn, partition, offset, cluster)


async def test_the_time_of_a_fence_never_goes_back(engine: AsyncEngine) -> None:
    """Law 2: the clock of the server that decides now may be behind the previous server's clock."""
    await fill(engine, progress={PAIR: 3}, licenses={PAIR: 5})
    ahead = datetime.now(UTC) + timedelta(hours=1)
    values = f"(1, 'PLAYER', '{ahead.isoformat()}', 4)"
    await execute(engine, f"INSERT INTO levelsync.fences (user_id, specialization, decided_at, level) VALUES {values}")
    assert (await sync(engine, 1, "progress_to_license")).after.license_level == 3
    assert [tuple(row) for row in await read(engine, "SELECT level, decided_at FROM levelsync.fences")] == [(3, ahead)]


async def test_positions_of_another_cluster_are_not_caught_up(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: an offset of another cluster does not count."""
    monkeypatch.setattr(steps, "CATCH_UP_SECONDS", 0.2)
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    await put_positions(engine, {FIRST: 7}, cluster="another")
    report = await OneWorker(engine, at_once, NoTopics({f"{TOPIC}-0": 7})).run(dry_run=False)
    assert (report["counts"]["unconfirmed"], report["counts"]["healed"]) == (1, 0)


async def test_a_run_does_not_scan_before_the_appliers_have_caught_up(
    engine: AsyncEngine, at_once: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law 5: a backlog does not become suspects."""
    monkeypatch.setattr(steps, "POLL_SECONDS", 0.01)
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    one_worker = OneWorker(engine, at_once, NoTopics({f"{TOPIC}-0": 7}))
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "settle")
    for _ in range(3):
        await eventually(lambda: take_one(engine, one_worker.steps))
        assert await read(engine, "SELECT step FROM levelsync.reconcile_runs") == [("settle",)]
    await put_positions(engine, {FIRST: 7})
    await execute(engine, "UPDATE user_licenses SET current_level = 4")
    report = await one_worker.finish(run_id)
    assert (report["counts"]["matching"], report["counts"]["changed_meanwhile"]) == (1, 0)


async def test_a_confirmation_waits_for_whoever_writes_the_license(engine: AsyncEngine, at_once: Settings) -> None:
    """Law 5: the level that an open transaction writes decides."""
    await fill(engine, {PAIR: 4}, {PAIR: 3})
    one_worker = OneWorker(engine, at_once)
    run_id = await one_worker.request()
    await until_step(one_worker, run_id, "confirm")
    (message,) = await one_worker.messages()
    async with engine.begin() as application:
        await application.execute(text("UPDATE user_licenses SET current_level = 4"))
        worker = asyncio.create_task(one_worker.chunks.work(message))
        await somebody_waits(engine)
    await worker
    counts = (await one_worker.finish(run_id))["counts"]
    assert (counts["changed_meanwhile"], counts["mismatched"]) == (1, 0)


async def test_rows_that_stay_are_checked_too(engine: AsyncEngine) -> None:
    """Law 3: another member that owns one partition of a batch may own them all."""
    await put_positions(engine, {FIRST: 3, SECOND: 9})
    batch = Batch([], {FIRST: 3, SECOND: 5}, {FIRST: 4})
    with pytest.raises(Evicted):
        await DatabasePositionStore(engine, "test", request_reconcile).store_idle(batch)
    query = "SELECT next_offset FROM levelsync.applied_offsets WHERE topic = 'progress.leveled-up' ORDER BY partition"
    assert [row[0] for row in await read(engine, query)] == [3, 9]


async def test_a_batch_checks_the_rows_that_stay_too(engine: AsyncEngine) -> None:
    await empty_tables(engine)
    partitions = await Partitions(engine).begin()
    await put_positions(engine, {FIRST: 0, SECOND: 9})
    records = partitions.records([rise(1, 3)])
    batch = Batch(records, {FIRST: 0, SECOND: 5}, {FIRST: 1})
    with pytest.raises(Evicted):
        await partitions.appliers[LEVELED_UP].apply(batch)
    assert await licenses(engine) == {}


async def test_a_consumer_has_every_row_checked(consumer: LevelConsumer) -> None:
    consumer._expected = {FIRST: 3, SECOND: 5}
    consumer._fetcher = SimpleNamespace(epochs={}, faults={})
    consumer._take({}, {})
    assert consumer.batch is not None
    assert consumer.batch.expected == {FIRST: 3, SECOND: 5}


async def test_a_row_that_moves_on_while_a_consumer_starts_is_no_new_topic(engine: AsyncEngine) -> None:
    """Law 3: the partition's former owner still applies, beyond an end that was read before the row."""
    await put_positions(engine, {FIRST: 5})

    async def read_ends() -> dict[TopicPartition, int]:
        await put_positions(engine, {FIRST: 9})  # a moment after the end was read
        return {FIRST: 5}

    starts = await DatabasePositionStore(engine, "test", request_reconcile).start({FIRST: 5}, {FIRST: 0}, read_ends)
    assert (starts[FIRST].seek, starts[FIRST].restarts) == (5, False)
    assert [row[0] for row in await read(engine, "SELECT next_offset FROM levelsync.applied_offsets")] == [9]


@pytest.fixture
async def consumer() -> LevelConsumer:
    """A consumer of both partitions that is not connected."""
    store = DatabasePositionStore(SimpleNamespace(), "test", request_reconcile)  # type: ignore[arg-type]
    made = LevelConsumer(TOPIC, store=store, max_bytes=1, may_read=asyncio.Event())
    made.subscribe([TOPIC])
    made._closed = True  # it was never started, so it need not be stopped
    return made


async def test_a_consumer_polls_only_when_it_may_read(consumer: LevelConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, other members still join the group."""

    async def poll(*_: object) -> dict[TopicPartition, list[str]]:
        return {FIRST: ["a record"]}

    monkeypatch.setattr(consumer, "_poll", poll)
    polled = asyncio.create_task(consumer.getmany())
    await asyncio.wait({polled}, timeout=0.05)
    assert not polled.done()
    consumer._may_read.set()
    assert await asyncio.wait_for(polled, 30) == {FIRST: ["a record"]}


async def test_a_rebalance_waits_for_the_batch_in_hand(consumer: LevelConsumer) -> None:
    epoch = consumer._epoch
    consumer._idle.clear()
    revoked = asyncio.create_task(_listener(consumer).on_partitions_revoked({FIRST}))
    await asyncio.wait({revoked}, timeout=0.05)
    assert (revoked.done(), consumer._epoch) == (False, epoch)
    await consumer.finish()
    await asyncio.wait_for(revoked, 30)
    assert consumer._epoch == epoch + 1


async def test_a_revocation_commits_what_is_applied(consumer: LevelConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[dict[TopicPartition, int]] = []

    async def commit(offsets: Mapping[TopicPartition, Any]) -> None:
        told.append({partition: at.offset for partition, at in offsets.items()})

    monkeypatch.setattr(consumer, "commit", commit)
    consumer._uncommitted = {FIRST: 4}
    await _listener(consumer).on_partitions_revoked({FIRST})
    assert told == [{FIRST: 4}]
    assert not consumer.owns_batch


async def test_a_partition_that_joins_is_committed(consumer: LevelConsumer, monkeypatch: pytest.MonkeyPatch) -> None:
    """During a commit. A partition that has moved on is committed again."""

    async def commit(_offsets: Mapping[TopicPartition, Any]) -> None:
        consumer._uncommitted |= {FIRST: 5, SECOND: 7}

    monkeypatch.setattr(consumer, "commit", commit)
    consumer._uncommitted = {FIRST: 4}
    await consumer._commit()
    assert consumer._uncommitted == {FIRST: 5, SECOND: 7}


def _listener(consumer: LevelConsumer) -> Any:
    return consumer._subscription.listener
