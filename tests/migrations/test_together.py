"""Migrations beside other migrations, and beside an application at work."""

import asyncio

import pytest

from service.store import migrate, schema
from tests.support import application
from tests.support.waiting import eventually

KEY = "hashtextextended('levelsync migrate', 0)"
WAITING = "FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
LONGER_THAN_THE_TIMEOUT = f"SELECT bool_and(waitstart < clock_timestamp() - interval '400 ms') {WAITING}"


async def test_of_two_migrations_at_once_one_works_and_one_changes_nothing(url: str) -> None:
    runs = await asyncio.gather(*(application.run(url, "alembic", "upgrade", "head") for _ in range(2)))
    assert [done.returncode for done in runs] == [0, 0], [done.stderr for done in runs]
    upgrades = [done.stderr.count("Running upgrade") for done in runs]
    revisions = len(list((schema.scripts_folder() / "versions").glob("*.py")))
    assert sorted(upgrades) == [0, revisions]


async def test_a_migration_waits_for_the_one_that_runs(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever lock_timeout the database sets."""
    name = url.rpartition("/")[2]
    await application.execute(url, f"ALTER DATABASE \"{name}\" SET lock_timeout = '300ms'")
    async with application.connected(url) as running:
        await running.execute(f"SELECT pg_advisory_lock({KEY})")
        waiting = asyncio.create_task(application.upgrade(url))
        await eventually(lambda: running.fetchval(f"SELECT count(*) {WAITING}"))
        assert await running.fetchval("SELECT to_regnamespace('levelsync')") is None
        await eventually(lambda: running.fetchval(LONGER_THAN_THE_TIMEOUT))
    await waiting
    assert "Another migration of this database is running" in capsys.readouterr().err
    assert await application.value(url, "SELECT version_num FROM levelsync.alembic_version") == schema.HEAD


async def test_a_table_that_stays_locked_is_given_up_with_a_sentence(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    await application.make_application(url)
    async with application.connected(url) as busy, busy.transaction():
        await busy.execute("SELECT * FROM user_licenses")
        assert "held a lock on user_licenses for longer" in await application.refused(url)
    stands = "SELECT version_num FROM levelsync.alembic_version"
    assert await application.value(url, stands) == "levelsync_schema"
    await application.upgrade(url)
    assert await application.value(url, stands) == schema.HEAD


async def test_an_unreachable_database_is_reported_with_a_sentence() -> None:
    done = await application.run("postgresql://postgres:secret@127.0.0.1:1/nothing", "alembic", "upgrade", "head")
    assert done.returncode != 0
    assert "127.0.0.1:1/nothing" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout
