"""Syncs beside each other and beside appliers (laws 2 and 6)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import product
from random import Random
from typing import get_args

import pytest
from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction
from service.apply.call import Call, Target, call_within, license_target, progress_target
from service.apply.progress import Way
from service.apply.rows import NO_DEFAULTS, Author
from service.core.decode import decode
from service.core.outcomes import LevelEvent
from service.levels import read_snapshot
from service.stream.positions import Batch, set_position
from service.sync import ProgressLicenseSyncService as Service
from service.sync.level import decide_level
from tests.support.applier import Partitions, one
from tests.support.model import ADVANCED, LEVELED_UP, Meant
from tests.support.records import TOPIC, as_record
from tests.support.tables import PLAYER, become_owner, fill, history, licenses, progress, read, somebody_waits

CALLS, USERS = 300, (1, 2, 3)
TARGETS: dict[str, Target] = {LEVELED_UP: license_target({}), ADVANCED: progress_target({})}


async def test_hundreds_of_calls_at_once_end_in_agreement(engine: AsyncEngine, service: Service) -> None:
    """Both directions on three pairs, while events arrive."""
    await fill(engine, progress={(1, "PLAYER"): 3, (3, "PLAYER"): 2}, licenses={(2, "PLAYER"): 4})
    rng, arrived = Random(7), asyncio.Event()  # noqa: S311 - a choice of directions, not a secret
    calls = [_call(service, rng, number, arrived) for number in range(CALLS)]

    async def events() -> None:
        await _deliver(engine, rng)
        arrived.set()

    await asyncio.gather(events(), *calls)
    assert await licenses(engine) == await progress(engine)
    tops: dict[tuple[int, str], int] = {}
    for pair, from_level, to_level, _, _ in await history(engine):
        assert from_level != to_level
        assert from_level == tops.get(pair, 4 if pair[0] == 2 else 0)
        tops[pair] = to_level
    assert {pair: tops.get(pair, 4) for pair in await licenses(engine)} == await licenses(engine)


async def _call(service: Service, rng: Random, number: int, arrived: asyncio.Event) -> None:
    """Make one call. The last hundred wait until all events have arrived, because an event changes one side only."""
    user, direction = USERS[number % len(USERS)], rng.choice(get_args(Direction))
    if number >= CALLS - 100:
        await arrived.wait()
    assert not (await service.sync_pair(user, "PLAYER", direction)).failed


async def _deliver(engine: AsyncEngine, rng: Random) -> None:
    """Apply twenty batches of each kind, of events that occur now."""
    partitions = await Partitions(engine).begin()
    for number in range(20):
        for kind in TARGETS:
            at = datetime.now(UTC)
            meant = [Meant(kind, user, "PLAYER", rng.randint(1, 8), at, "/test", f"{number}-{user}") for user in USERS]
            await partitions.apply(kind, partitions.records(meant))


async def test_a_batch_whose_row_a_decision_made_sees_its_fence(engine: AsyncEngine) -> None:
    """A missing row cannot be locked, so after the conflict the batch reads the fence too (law 1)."""
    await fill(engine, progress={PLAYER: 5})
    partitions = await Partitions(engine).begin()
    async with engine.begin() as conn:
        await decide_level(conn, NO_DEFAULTS, PLAYER, 2, Author("test"))
        batch = asyncio.create_task(partitions.apply(LEVELED_UP, partitions.records([one(LEVELED_UP, 5)])))
        await somebody_waits(engine)
    assert list((await batch).outcomes.values()) == ["superseded"]
    assert await licenses(engine) == await progress(engine) == {PLAYER: 2}


async def _apply(conn: AsyncConnection, kind: str, meant: Sequence[Meant]) -> None:
    records = [as_record(m, i) for i, m in enumerate(meant)]
    tp = TopicPartition(TOPIC[kind], 0)
    await set_position(conn, tp, 0, "")
    events = [item for item in decode(records) if isinstance(item, LevelEvent)]
    batch = Batch(records, {tp: 0}, {})
    call = Call(TARGETS[kind], await read_snapshot(conn), batch, batch.expected, events, Way.WHOLE, {})
    await call_within(conn, call)


@pytest.mark.parametrize(
    ("direction", "license_level"),
    [  # without a license as the source, there is nothing to wait for
        pair for pair in product(get_args(Direction), [None, 2]) if pair != ("license_to_progress", None)
    ],
)
async def test_a_sync_that_waited_for_a_batch_reads_the_new_levels(
    engine: AsyncEngine, service: Service, license_level: int | None, direction: Direction
) -> None:
    """The batch has changed or created the row (law 6)."""
    await fill(engine, progress={PLAYER: 3}, licenses={} if license_level is None else {PLAYER: license_level})
    async with engine.begin() as conn:
        await _apply(conn, LEVELED_UP, [one(LEVELED_UP, 5)])
        sync = asyncio.create_task(service.sync_pair(1, "PLAYER", direction))
        await somebody_waits(engine)
    result = await sync
    expected = 3 if direction == "progress_to_license" else 5
    assert result.success
    assert (result.before.progress_level, result.before.license_level) == (3, 5)
    assert await licenses(engine) == await progress(engine) == {PLAYER: expected}
    assert [(a, b) for _, a, b, _, _ in await history(engine)][1:] == ([(5, 3)] if expected == 3 else [])


async def test_a_sync_whose_progress_a_batch_made_decides_again(engine: AsyncEngine, service: Service) -> None:
    await fill(engine, licenses={PLAYER: 3})
    async with engine.begin() as conn:
        await _apply(conn, ADVANCED, [one(ADVANCED, 5)])
        sync = asyncio.create_task(service.sync_license_to_progress(1, "PLAYER"))
        await somebody_waits(engine)
    assert (await sync).action == "updated"
    assert await licenses(engine) == await progress(engine) == {PLAYER: 3}


async def test_a_decision_s_time_is_after_both_locks(engine: AsyncEngine, service: Service) -> None:
    """Law 2: an event that occurs while the sync waits for the second lock is older than the decision."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    async with engine.begin() as conn:
        await conn.execute(text("SELECT FROM user_licenses FOR UPDATE"))
        sync = asyncio.create_task(service.sync_progress_to_license(1, "PLAYER"))
        await somebody_waits(engine)
        assert not await read(engine, "SELECT id FROM specialization_progress FOR UPDATE SKIP LOCKED")
        occurred = (await conn.execute(text("SELECT clock_timestamp()"))).scalar_one()
    assert (await sync).action == "updated"
    (fence,) = await read(engine, "SELECT decided_at FROM levelsync.fences")
    assert timedelta(0) < fence.decided_at - occurred


async def test_a_deadlock_with_the_application_is_retried(engine: AsyncEngine, service: Service) -> None:
    """An application may lock the rows in the other order, so the sync retries."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    async with engine.begin() as conn:
        await become_owner(conn)
        await conn.execute(text("SET LOCAL deadlock_timeout = '30s'"))  # so that the sync detects the deadlock
        await conn.execute(text("SELECT FROM user_licenses FOR UPDATE"))
        sync = asyncio.create_task(service.sync_progress_to_license(1, "PLAYER"))
        await somebody_waits(engine)
        await conn.execute(text("UPDATE specialization_progress SET current_level = 4"))
    assert (await sync).action == "updated"
    assert await licenses(engine) == await progress(engine) == {PLAYER: 4}


async def test_opposite_decisions_on_a_pair_without_rows_agree(engine: AsyncEngine, service: Service) -> None:
    """Nothing can be locked at first, so one of them decides again."""
    await fill(engine)
    await asyncio.gather(*(service.set_level(1, "PLAYER", level) for level in (2, 5, 7, 3)))
    assert await licenses(engine) == await progress(engine)
    assert len(await history(engine)) == 4
