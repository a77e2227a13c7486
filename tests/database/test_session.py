"""The settings that every connection needs, whatever the role, the database or the server sets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings, SettingsError
from service.store import migrate
from service.store.engine import make_engine
from tests.support import application
from tests.support.servers import Postgres, database_name

_STRANGE = {
    "default_transaction_isolation": "'serializable'",
    "timezone": "'Europe/Budapest'",
    "lock_timeout": "'3h'",
    "statement_timeout": "'3h'",
    "idle_in_transaction_session_timeout": "'1ms'",
}
_SHOWN = text("""
    SELECT current_setting('transaction_isolation'), current_setting('timezone'), current_setting('lock_timeout'),
           current_setting('statement_timeout'), current_setting('idle_in_transaction_session_timeout')
""")
# PostgreSQL 17 and newer: the trigger runs after the startup parameters are set.
_ON_LOGIN = (
    """CREATE FUNCTION strange() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
         PERFORM set_config('timezone', 'Europe/Budapest', false), set_config('lock_timeout', '1s', false); END $$""",
    "CREATE EVENT TRIGGER strange ON login EXECUTE FUNCTION strange()",
    "ALTER EVENT TRIGGER strange ENABLE ALWAYS",
)


@pytest.fixture
async def strange(empty_database_url: str, postgres: Postgres) -> AsyncIterator[Settings]:
    """Settings of a role and a database with other defaults for everything."""
    role, database = f"strange_{uuid.uuid4().hex}", database_name(empty_database_url)
    await postgres.execute(f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'x'")
    for name, value in _STRANGE.items():
        await postgres.execute(f"ALTER ROLE {role} SET {name} = {value}")
        await postgres.execute(f'ALTER DATABASE "{database}" SET {name} = {value}')
    place = empty_database_url.rpartition("@")[2]
    yield application.settings(f"postgresql://{role}:x@{place}?options=-ctimezone%3DAsia%2FTokyo")
    await application.execute(empty_database_url, f"DROP OWNED BY {role}", f"DROP ROLE {role}")


async def _shown(engine: AsyncEngine) -> list[str]:
    async with engine.connect() as conn:
        return list((await conn.execute(_SHOWN)).one())


async def test_settings_of_a_role_or_a_database_change_nothing(strange: Settings) -> None:
    """Laws 2 and 6 need READ COMMITTED, naive columns need UTC, and retries need the bounds."""
    engine = make_engine(strange)
    assert await _shown(engine) == ["read committed", "UTC", "10s", "1min", "1min"]
    await engine.dispose()


async def test_a_migration_is_read_committed_without_a_statement_timeout(strange: Settings) -> None:
    async with migrate.connect(strange) as conn:
        shown = (await conn.execute(_SHOWN)).one()
    assert (shown[0], shown[1], shown[3], shown[4]) == ("read committed", "UTC", "0", "0")


async def test_settings_that_a_login_trigger_changes_are_set_again(empty_database_url: str) -> None:
    if not await _add_login_trigger(empty_database_url):
        pytest.skip("needs PostgreSQL 17: a trigger on login")
    engine = make_engine(application.settings(empty_database_url), bounds={"lock_timeout": "250ms"})
    assert (await _shown(engine))[1:3] == ["UTC", "250ms"]
    await engine.dispose()


async def test_session_settings_that_cannot_be_set_are_named(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wrong time zone would shift naive columns without an error."""
    if not await _add_login_trigger(empty_database_url):
        pytest.skip("needs PostgreSQL 17: a trigger on login")
    monkeypatch.setattr("service.store.engine._SET", "SELECT $1::text[], $2::text[]")
    engine = make_engine(application.settings(empty_database_url))
    with pytest.raises(SettingsError, match="lock_timeout is 1s instead of 10s, timezone is Europe/Budapest instead"):
        await _shown(engine)
    await engine.dispose()


async def _add_login_trigger(url: str) -> bool:
    async with application.connected(url) as conn:
        if conn.get_server_version().major < 17:
            return False
    await application.execute(url, *_ON_LOGIN)
    return True


async def test_a_migration_statement_has_no_timeout(empty_database_url: str) -> None:
    """asyncpg's own bound applies only to statements that the server bounds too."""
    async with migrate.connect(application.settings(empty_database_url)) as conn:
        driver = (await conn.get_raw_connection()).driver_connection
        assert driver is not None
        assert driver._config.command_timeout is None
    engine = make_engine(application.settings(empty_database_url))
    async with engine.connect() as conn:
        driver = (await conn.get_raw_connection()).driver_connection
        assert driver is not None
        assert driver._config.command_timeout == 90
    await engine.dispose()
