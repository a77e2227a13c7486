"""Migrations beside other migrations, and beside an application at work."""

import asyncio

import pytest
from sqlalchemy import make_url

from service.store import migrate, schema
from tests.support import application
from tests.support.waiting import eventually

KEY = "hashtextextended('levelsync migrate', 0)"
WAITING = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

LONGER_THAN_THE_TIMEOUT = """
    SELECT bool_and(waitstart < clock_timestamp() - interval '400 ms')
      FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
"""


async def test_of_two_started_at_once_one_works_and_one_finds_nothing_to_do(empty_database_url: str) -> None:
    runs = await asyncio.gather(*(application.run(empty_database_url, "alembic", "upgrade", "head") for _ in range(2)))
    assert [done.returncode for done in runs] == [0, 0], [done.stderr for done in runs]
    upgrades = [done.stderr.count("Running upgrade") for done in runs]
    revisions = len(list((schema.scripts_folder() / "versions").glob("*.py")))
    assert sorted(upgrades) == [0, revisions]


async def test_a_migration_waits_for_the_one_that_runs(
    empty_database_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever lock_timeout the database sets."""
    name = empty_database_url.rpartition("/")[2]
    await application.execute(empty_database_url, f"ALTER DATABASE \"{name}\" SET lock_timeout = '300ms'")
    async with application.connected(empty_database_url) as running:
        await running.execute(f"SELECT pg_advisory_lock({KEY})")
        waiting = asyncio.create_task(application.upgrade(empty_database_url))
        await eventually(lambda: running.fetchval(WAITING))
        assert await running.fetchval("SELECT to_regnamespace('levelsync')") is None
        await eventually(lambda: running.fetchval(LONGER_THAN_THE_TIMEOUT))
    await waiting
    assert "Another migration of this database is running" in capsys.readouterr().err
    assert (
        await application.value(empty_database_url, "SELECT version_num FROM levelsync.alembic_version") == schema.HEAD
    )


async def test_a_table_that_stays_locked_is_given_up_with_a_sentence(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier revisions stay done, and the next run continues."""
    monkeypatch.setattr(migrate, "LOCK_TIMEOUT", "100ms")
    await application.make_application(empty_database_url)
    async with application.connected(empty_database_url) as busy, busy.transaction():
        await busy.execute("SELECT * FROM user_licenses")
        assert "held a lock on user_licenses for longer" in await application.refused(empty_database_url)
    stands = "SELECT version_num FROM levelsync.alembic_version"
    assert await application.value(empty_database_url, stands) == "levelsync_schema"
    await application.upgrade(empty_database_url)
    assert await application.value(empty_database_url, stands) == schema.HEAD


async def test_a_missing_right_is_said_with_a_sentence(empty_database_url: str) -> None:
    await application.make_application(empty_database_url)
    name = empty_database_url.rpartition("/")[2]
    role, url = f"guest_{name[-8:]}", empty_database_url
    await application.execute(url, f"CREATE ROLE {role} LOGIN PASSWORD 'guest'")
    try:
        as_guest = make_url(url).set(username=role, password="guest")  # noqa: S106 - a role of this test only
        guest = as_guest.render_as_string(hide_password=False)
        assert "The database user may not" in await application.refused(guest)
    finally:
        await application.execute(url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


@pytest.mark.parametrize("command", [("alembic", "upgrade", "head"), ("levelsync", "migrate")])
async def test_a_database_that_is_away_is_said_with_a_sentence(command: tuple[str, ...]) -> None:
    done = await application.run("postgresql://postgres:secret@127.0.0.1:1/nothing", *command)
    assert done.returncode != 0
    assert "127.0.0.1:1/nothing" in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    assert "secret" not in done.stderr + done.stdout
