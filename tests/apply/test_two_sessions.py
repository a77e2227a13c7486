"""A second session changes rows while a batch is applied.

The tables must end as the model says when one of the two came wholly before the other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support.applier import Events, rise, sync
from tests.support.interference import INTERFERENCES, Interference, Setup, apply, ends
from tests.support.tables import add_rows, execute, held, letters, levels_of, somebody_waits, steps, trigger, waiting

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
"""What a third session locks while the batch needs it, and then rolls back."""
by_name = pytest.mark.parametrize("interference", INTERFERENCES, ids=lambda one: one.name)


@by_name
async def test_a_change_between_two_statements_comes_before_or_after(setup: Setup, interference: Interference) -> None:
    """Also before the first statement and before the commit."""

    async def begin() -> Awaitable[None]:
        return apply(await setup.reset())

    await setup.interrupt(interference, begin, ends(interference))


@by_name
async def test_a_change_during_any_wait_comes_before_or_after(setup: Setup, interference: Interference) -> None:
    await trigger(setup.other, "BEFORE UPDATE", _LOCKED)
    await trigger(setup.other, "BEFORE INSERT", _LOCKED, on="license_progressions")
    allowed = ends(interference)
    for wait, statement in WAITS.items():
        events = await setup.reset()
        async with held(setup.other, statement):
            batch = asyncio.create_task(apply(events))
            while not batch.done() and not await waiting(setup.other):
                await asyncio.sleep(0.005)
            change = await setup.interfere(interference, await waiting(setup.other))
        await asyncio.gather(batch, change)
        assert await setup.state() in allowed, f"while it waited for: {wait}"


_HOLD = "SELECT FROM user_licenses WHERE user_id = {} FOR UPDATE"


async def test_a_lowering_stands_whatever_isolation_a_role_has(events: Events, engine: AsyncEngine) -> None:
    """Laws 2 and 6: user 2 is lowered while the batch waits for user 1. The batch must see the fence."""
    setting = "ALTER ROLE CURRENT_USER IN DATABASE %I SET default_transaction_isolation = ''repeatable read''"
    await execute(engine, f"DO $$BEGIN EXECUTE format('{setting}', current_database()); END$$")
    await engine.dispose()  # so that every later connection has the setting
    await add_rows(engine, progress={(2, "PLAYER"): 5}, licenses={(1, "PLAYER"): 1, (2, "PLAYER"): 3})
    async with held(engine, _HOLD.format(1)):
        batch = asyncio.create_task(events.apply(rise(1, 2), rise(2, 5)))
        await somebody_waits(engine)
        synced = await sync(engine, 2, "license_to_progress")
    await batch
    in_time = synced.after.license_level == 5  # a batch may apply user 2's event before it waits for user 1
    assert await levels_of(engine, 2) == ((5, 5) if in_time else (3, 3))


async def test_other_rows_are_not_locked_while_a_batch_waits(events: Events, engine: AsyncEngine) -> None:
    """The application holds one license, and can still lock all others."""
    await add_rows(engine, licenses={(user, "PLAYER"): 1 for user in range(1, 31)})
    async with held(engine, _HOLD.format(30)):
        batch = asyncio.create_task(events.apply(*(rise(user, 2) for user in range(1, 31))))
        await somebody_waits(engine)
        async with engine.begin() as application:
            await application.execute(text("SET LOCAL lock_timeout = '500ms'"))
            for user in range(1, 30):
                await application.execute(text(_HOLD.format(user)))
    await batch
    assert {await levels_of(engine, user) for user in range(1, 31)} == {(None, 2)}


async def test_a_maximum_that_falls_while_a_batch_waits_counts(events: Events, engine: AsyncEngine) -> None:
    await add_rows(engine, licenses={(1, "PLAYER"): 1})
    async with held(engine, _HOLD.format(1)):
        batch = asyncio.create_task(events.apply(rise(1, 8)))
        await somebody_waits(engine)
        await execute(engine, "UPDATE specializations SET max_levels = 5 WHERE id = 'PLAYER'")
    await batch
    assert await levels_of(engine, 1) == (None, 1)
    assert await letters(engine) == [(0, "level_out_of_range")]
    assert await steps(engine) == []


async def test_a_deadlock_is_tried_again_and_makes_no_dead_letter(events: Events, engine: AsyncEngine) -> None:
    """40P01: a trigger of the application locks the rows in the opposite order, and the batch is rolled back."""
    await add_rows(engine, progress={(1, "PLAYER"): 5}, licenses={(1, "PLAYER"): 2})
    body = "UPDATE specialization_progress SET total_xp = 9 WHERE student_id = NEW.user_id; RETURN NULL;"
    await trigger(engine, "AFTER UPDATE", body)
    async with engine.begin() as application:
        await application.execute(text("SET LOCAL deadlock_timeout = '60s'"))
        await application.execute(text("SELECT FROM specialization_progress WHERE student_id = 1 FOR UPDATE"))
        batch = asyncio.create_task(events.apply(rise(1, 5)))
        await somebody_waits(engine)
        await application.execute(text(_HOLD.format(1)))
    await batch
    assert (await levels_of(engine, 1), await steps(engine)) == ((5, 5), [(1, "PLAYER", 2, 5)])
    assert await letters(engine) == []
