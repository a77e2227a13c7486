"""A process is killed while it replays letters and applies them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.dead_letters.select import Selection
from service.dead_letters.write import replay
from service.settings import Settings
from tests.support.model import LEVELED_UP, Meant
from tests.support.process import LevelsyncProcess
from tests.support.records import as_record
from tests.support.tables import count, empty_tables, execute, history
from tests.support.topics import Record, publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
USERS, LEVELS = range(1001, 1101), range(2, 9)
_MAKE = "INSERT INTO users (id, name, email) SELECT n, 'New', n || '@example.org' FROM generate_series(1001, 1100) n"


def records() -> list[Record]:
    """Return events of users who do not exist yet, level by level."""
    began = datetime.now(UTC) - timedelta(minutes=5)
    meant = [
        Meant(LEVELED_UP, user, "PLAYER", level, began + timedelta(seconds=level), "/test", f"{user}-{level}")
        for level in LEVELS
        for user in USERS
    ]
    return [Record(r.topic, r.key, r.value, list(r.headers), r.timestamp) for r in (as_record(one, 0) for one in meant)]


@pytest.mark.usefixtures("topics")
async def test_every_letter_is_applied_once_and_in_order_though_its_process_is_killed(
    engine: AsyncEngine, settings: Settings, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    """A record that was sent twice is applied once."""
    await empty_tables(engine)
    first, second = (levelsync_process(arguments=("serve", "--roles", "apply,relay")) for _ in range(2))
    await first.start()
    await publish(settings.kafka_bootstrap_servers, records())

    async def are(condition: str, number: int) -> bool:
        return await count(engine, f"levelsync.dead_letters WHERE {condition}") >= number

    await eventually(lambda: are("true", len(USERS) * len(LEVELS)))
    await eventually(lambda: "relaying the outbox" in first.output)
    await second.start()
    await execute(engine, _MAKE)
    assert [len(ids) async for ids in replay(engine, Selection(), "test")] == [len(USERS) * len(LEVELS)]
    await eventually(lambda: are("resolved_at IS NOT NULL", 1))
    first.kill()
    await eventually(lambda: are("resolution = 'replayed'", len(USERS) * len(LEVELS)), 60)
    steps = {((user, "PLAYER"), level) for user in USERS for level in LEVELS}
    found = [(pair, before, after) for pair, before, after, *_ in await history(engine)]
    assert len(found) == len(steps)
    assert {(pair, after) for pair, _, after in found} == steps
    assert all(before == (after - 1 if after > LEVELS[0] else 0) for _, before, after in found)
    assert await count(engine, "levelsync.dead_letters WHERE attempts > 1") == 0
    await asyncio.to_thread(second.stop)
