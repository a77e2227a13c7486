"""Two processes relay, and the active one is killed."""

from __future__ import annotations

import time

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.outbox import delivered, first_deliveries, pending, put_numbered
from tests.support.process import Make
from tests.support.servers import Kafka
from tests.support.waiting import eventually

USERS, EVENTS = range(1, 21), 200
TAKEOVER_SECONDS = 5.0


@pytest.mark.usefixtures("topics")
async def test_a_killed_relay_loses_nothing_and_no_key_loses_its_order(
    engine: AsyncEngine, kafka: Kafka, levelsync_process: Make
) -> None:
    """The other takes over within seconds. Every event arrives, and a key's first deliveries are in order."""
    first, second = (levelsync_process(arguments=("serve", "--roles", "relay")) for _ in range(2))
    await first.start()
    await eventually(lambda: "relaying the outbox" in first.output)
    await second.start()
    await put_numbered(engine, [(user, number) for number in range(1, EVENTS + 1) for user in USERS])
    await eventually(lambda: _is_below(engine, len(USERS) * EVENTS))
    first.kill()
    killed_at, left = time.monotonic(), await pending(engine)
    assert left > 0
    await eventually(lambda: _is_below(engine, left))
    assert time.monotonic() - killed_at < TAKEOVER_SECONDS
    await eventually(lambda: _is_below(engine, 1))
    everything = {user: list(range(1, EVENTS + 1)) for user in USERS}
    assert first_deliveries(await delivered(kafka.bootstrap_servers)) == everything
    assert "relaying the outbox" in second.output


async def _is_below(engine: AsyncEngine, number: int) -> bool:
    return await pending(engine) < number
