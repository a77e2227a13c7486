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


async def apply_and_keep(setup: Setup, kept: Load, gone: Load) -> None:
    await setup.publish(make_load(kept, "kept"))
    await setup.assert_ended()
    await keep(setup.engine)
    await setup.publish(make_load(gone, "gone"))


async def test_a_database_restored_while_the_service_runs_is_brought_forward(setup: Setup, log: list[Any]) -> None:
    """Law 3: nothing is skipped and the history is the model's, although no new event arrives."""
    async with running(setup.settings) as service:
        await apply_and_keep(setup, Load(400, 40, seed=5), Load(400, 40, seed=6))
        await setup.assert_ended()
        await restore(setup.engine)
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
        assert await applying.problems(service) == {}
    assert any("DatabaseWentBack" in line.get("error", "") for line in log)


async def test_a_database_restored_under_load_is_brought_forward(setup: Setup) -> None:
    """Law 3: also while every partition moves on."""
    async with running(setup.settings):
        await apply_and_keep(setup, Load(400, 40, seed=7), Load(3000, 200, seed=8))
        await setup.wait_applied(1000)
        await restore(setup.engine)
        await setup.publish(make_load(Load(400, 40, seed=9), "new"))
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)


async def test_a_database_restored_while_the_service_is_stopped_is_brought_forward(setup: Setup) -> None:
    """Law 3: the service starts at the smaller of the two positions."""
    async with running(setup.settings):
        await apply_and_keep(setup, Load(400, 40, seed=10), Load(400, 40, seed=11))
        await setup.assert_ended()
    await restore(setup.engine)
    async with running(setup.settings):
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)


async def _begun_anew(setup: Setup) -> bool:
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
        await eventually(lambda: _begun_anew(setup))
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
    said = {line["event"] for line in log}
    assert "positions restart" in said
    assert "retention deleted records that were never read" not in said
