"""A database that goes back in time (a restore, a failover to a replica that lagged) is brought forward from Kafka."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support import applying
from tests.support.applying import running
from tests.support.load import Load, make_load
from tests.support.published import Scene

pytestmark = pytest.mark.real_broker
TABLES = (
    "public.user_licenses",
    "public.specialization_progress",
    "public.license_progressions",
    "levelsync.applied_offsets",
)


async def keep(engine: AsyncEngine) -> None:
    """A backup: copies of everything that a batch writes."""
    await applying.run(
        engine, "CREATE SCHEMA kept", *(f"CREATE TABLE kept.{t.split('.')[1]} AS TABLE {t}" for t in TABLES)
    )


async def restore(engine: AsyncEngine) -> None:
    """The backup is the database again, at one stroke."""
    await applying.run(
        engine,
        f"TRUNCATE {', '.join(TABLES)} CASCADE",
        *(f"INSERT INTO {t} SELECT * FROM kept.{t.split('.')[1]}" for t in TABLES),
    )


async def test_a_database_restored_while_the_service_runs_is_brought_forward(scene: Scene, log: list[Any]) -> None:
    """Law 3: nothing is skipped and the history is the model's, though not one new event comes."""
    await scene.publish(make_load(Load(400, 40, seed=5), "kept"))
    async with running(scene.settings) as service:
        await scene.assert_ended()
        await keep(scene.engine)
        await scene.publish(make_load(Load(400, 40, seed=6), "gone"))
        await scene.assert_ended()
        await restore(scene.engine)
        await scene.assert_ended()
        await applying.caught_up(scene.settings, scene.engine)
        assert await applying.problems(service) == {}
    assert any("DatabaseWentBack" in line.get("error", "") for line in log)


async def test_a_database_restored_under_load_is_brought_forward(scene: Scene) -> None:
    """Law 3: also where every partition moves on at once."""
    await scene.publish(make_load(Load(400, 40, seed=7), "kept"))
    async with running(scene.settings):
        await scene.assert_ended()
        await keep(scene.engine)
        await scene.publish(make_load(Load(3000, 200, seed=8), "gone"))
        await scene.wait_applied(1000)
        await restore(scene.engine)
        await scene.publish(make_load(Load(400, 40, seed=9), "new"))
        await scene.assert_ended()
        await applying.caught_up(scene.settings, scene.engine)


async def test_a_database_restored_while_the_service_is_stopped_is_brought_forward(scene: Scene) -> None:
    """Law 3: it starts at the smaller of the two positions."""
    await scene.publish(make_load(Load(400, 40, seed=10), "kept"))
    async with running(scene.settings):
        await scene.assert_ended()
        await keep(scene.engine)
        await scene.publish(make_load(Load(400, 40, seed=11), "gone"))
        await scene.assert_ended()
    await restore(scene.engine)
    async with running(scene.settings):
        await scene.assert_ended()
        await applying.caught_up(scene.settings, scene.engine)
