"""Law 7: killing any worker at any moment neither loses nor repeats the effect of a range."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support.process import LevelsyncProcess
from tests.support.runs import DRIFT, reconcile

pytestmark = [pytest.mark.real_broker, pytest.mark.usefixtures("topics")]
USERS, DRIFTED = 100_000, 2_000
_FILL = (
    "TRUNCATE user_licenses, specialization_progress CASCADE",
    f"""
    INSERT INTO users (id, name, email)
    SELECT g, 'u' || g, 'u' || g || '@k.example' FROM generate_series(201, {USERS}) g
    """,
    f"""
    INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp)
    SELECT g, 'PLAYER', 5, 0 FROM generate_series(1, {USERS}) g
    """,
    f"""
    INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level, started_at)
    SELECT g, 'PLAYER', 5, 5, now() FROM generate_series(1, {USERS}) g
    """,
)
_HISTORY = text("SELECT count(*), count(DISTINCT user_license_id) FROM license_progressions")


async def heal_while_killing(
    engine: AsyncEngine, settings: Settings, make: Callable[..., LevelsyncProcess], kills: int, seed: int
) -> None:
    """Run one heal after another; kill a worker at a random moment of each and start it again."""
    chance = random.Random(seed)  # noqa: S311 - repeatable moments, not a secret
    worker = make(settings.model_copy(update={"reconcile_grace": timedelta(0), "reconcile_every": timedelta(0)}))
    async with engine.begin() as conn:
        for statement in _FILL:
            await conn.execute(text(statement))
    await worker.start()
    for _ in range(kills):
        await drift_again(engine)
        running = asyncio.create_task(reconcile(engine, direction="highest", dry_run=False, force=True))
        await asyncio.sleep(chance.uniform(0, 1.5))  # kill at a random point of the run
        worker.kill()
        await worker.start()
        counts = await running
        assert (counts["scanned"], counts["mismatched"], counts["healed"]) == (USERS, DRIFTED, DRIFTED)
        async with engine.connect() as conn:  # one row of history for each pair, so every heal happened once
            assert tuple((await conn.execute(_HISTORY)).one()) == (DRIFTED, DRIFTED)
    left = await reconcile(engine)
    assert sum(left[kind] for kind in DRIFT) == 0


async def drift_again(engine: AsyncEngine) -> None:
    """Lower every fiftieth license by a level, and empty the history."""
    async with engine.begin() as conn:
        await conn.execute(text("TRUNCATE license_progressions"))
        await conn.execute(text(f"UPDATE user_licenses SET current_level = 4 WHERE user_id % {USERS // DRIFTED} = 0"))


async def test_a_worker_killed_in_a_run_loses_and_repeats_nothing(
    engine: AsyncEngine, settings: Settings, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    await heal_while_killing(engine, settings, levelsync_process, kills=1, seed=3)


@pytest.mark.soak
async def test_a_worker_killed_twenty_times_loses_and_repeats_nothing(
    engine: AsyncEngine, settings: Settings, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    await heal_while_killing(engine, settings, levelsync_process, kills=20, seed=4)
