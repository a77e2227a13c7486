"""Positions of a restored database, and of another cluster."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from tests.support import applying
from tests.support.applying import running
from tests.support.load import Load, make_load
from tests.support.published import Setup
from tests.support.tables import execute, read
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
TABLES = (
    "public.user_licenses",
    "public.specialization_progress",
    "public.license_progressions",
    "levelsync.applied_offsets",
)


async def keep(engine: AsyncEngine) -> None:
    copies = (f"CREATE TABLE kept.{t.split('.')[1]} AS TABLE {t}" for t in TABLES)
    await execute(engine, "CREATE SCHEMA kept", *copies)


async def restore(engine: AsyncEngine) -> None:
    """Replace the tables by the backup, in one transaction."""
    copies = (f"INSERT INTO {t} SELECT * FROM kept.{t.split('.')[1]}" for t in TABLES)
    await execute(engine, f"TRUNCATE {', '.join(TABLES)} CASCADE", *copies)


async def test_a_restored_database_is_brought_forward(setup: Setup, log: list[Any]) -> None:
    """Law 3: nothing is skipped and the history is the model's, although no new event arrives.

    The database is restored while the service is idle, while every partition moves on, and while the service is
    stopped, so that it starts at the smaller of the two positions.
    """
    async with running(setup.settings) as service:
        await setup.publish(make_load(Load(400, 40, seed=5), "kept"))
        await setup.assert_ended()
        await keep(setup.engine)
        await setup.publish(make_load(Load(400, 40, seed=6), "gone"))
        await setup.assert_ended()
        await restore(setup.engine)
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
        assert await applying.problems(service) == {}
        assert any("DatabaseWentBack" in line.get("error", "") for line in log)
        await setup.publish(make_load(Load(3000, 200, seed=8), "under load"))
        await setup.wait_applied(1400)
        await restore(setup.engine)
        await setup.publish(make_load(Load(400, 40, seed=9), "new"))
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
    await restore(setup.engine)
    async with running(setup.settings):
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)


async def _is_read_again(setup: Setup) -> bool:
    return bool((await read(setup.engine, "SELECT max(next_offset) < 1000000 FROM levelsync.applied_offsets"))[0][0])


async def test_on_another_cluster_every_topic_is_read_from_its_beginning(setup: Setup, log: list[Any]) -> None:
    """The rows are higher than the new topics' ends. Nothing is skipped, and nothing counts as lost."""
    await execute(
        setup.engine,
        "INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id) "
        "SELECT topic, partition, 1000000, 'the-old-cluster' "
        "FROM unnest(ARRAY['progress.leveled-up', 'license.advanced']) AS topic, generate_series(0, 3) AS partition",
    )
    await setup.publish(make_load(Load(400, 40, seed=31)))
    async with running(setup.settings):
        await eventually(lambda: _is_read_again(setup))
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
    said = {line["event"] for line in log}
    assert "positions restart" in said
    assert "retention deleted records that were never read" not in said
