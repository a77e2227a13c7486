"""A batch is stopped at every statement and at every wait, and a second session changes what it works on.

The tables must end as `tests/support/model.py` has them when one came wholly before the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import count

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.engine import make_engine
from tests.support.interference import INTERFERENCES, Interference, Scene, apply, ends
from tests.support.links import SlowLink
from tests.support.tables import held, trigger

_LOCKED = "PERFORM pg_advisory_xact_lock_shared(42); RETURN NEW;"
WAITS = {
    "license 1": "SELECT FROM user_licenses WHERE user_id = 1 FOR UPDATE",
    "license 2": "SELECT FROM user_licenses WHERE user_id = 2 FOR UPDATE",
    "user 3": "SELECT FROM users WHERE id = 3 FOR UPDATE",
    "position": "SELECT FROM levelsync.applied_offsets FOR UPDATE",
    "history": "LOCK TABLE license_progressions IN SHARE ROW EXCLUSIVE MODE",
    "insert": "INSERT INTO user_licenses (user_id, specialization_type, started_at) VALUES (3, 'PLAYER', now())",
    "inside a trigger": "SELECT pg_advisory_xact_lock(42)",
}
"""What a third session does and takes back, while the batch needs it."""
by_name = pytest.mark.parametrize("interference", INTERFERENCES, ids=lambda one: one.name)


@pytest.fixture
async def link(settings: Settings) -> AsyncIterator[SlowLink]:
    async with SlowLink(settings.database_url.get_secret_value()) as made:
        yield made


@pytest.fixture
async def scene(engine: AsyncEngine, settings: Settings, link: SlowLink) -> AsyncIterator[Scene]:
    stopped = make_engine(settings.model_copy(update={"database_url": link.secret_url}))
    yield Scene(batch=stopped, other=engine)
    link.go_on()
    await stopped.dispose()


@by_name
async def test_a_change_between_any_two_statements_comes_before_or_after(
    scene: Scene, link: SlowLink, interference: Interference
) -> None:
    """Also before the first statement and before the commit."""
    allowed = ends(interference)
    for trip in count(1):
        events = await scene.reset()
        link.stop_before(trip)
        batch = asyncio.create_task(apply(events))
        stop = asyncio.create_task(link.stopped.wait())
        await asyncio.wait({batch, stop}, return_when=asyncio.FIRST_COMPLETED)
        if not stop.done():  # the batch has fewer statements
            stop.cancel()
            link.stop_before(0)
            assert trip > 1
            break
        change = await scene.interfere(interference)
        link.go_on()
        await asyncio.gather(batch, change)
        assert await scene.state() in allowed, f"stopped before round trip {trip}"


@by_name
async def test_a_change_during_any_wait_comes_before_or_after(scene: Scene, interference: Interference) -> None:
    """Whatever the batch waits for."""
    await trigger(scene.other, "BEFORE UPDATE", _LOCKED)
    await trigger(scene.other, "BEFORE INSERT", _LOCKED, "license_progressions", "hostile_history")
    allowed = ends(interference)
    for wait, statement in WAITS.items():
        events = await scene.reset()
        async with held(scene.other, statement):
            batch = asyncio.create_task(apply(events))
            while not batch.done() and not await scene.waiting():
                await asyncio.sleep(0.005)
            change = await scene.interfere(interference, await scene.waiting())
        await asyncio.gather(batch, change)
        assert await scene.state() in allowed, f"while it waited for: {wait}"
