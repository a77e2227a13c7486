"""The settings that every connection needs, whatever the role, the database or the server sets."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.settings import Settings, SettingsError
from service.store import migrate
from service.store.engine import make_engine
from tests.support import application
from tests.support.application import asked
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


async def _shown(conn: AsyncConnection) -> list[str]:
    return list((await conn.execute(_SHOWN)).one())


async def test_settings_of_a_role_or_a_database_change_nothing(strange: Settings) -> None:
    """Laws 2 and 6 need READ COMMITTED, naive columns need UTC, and retries need the bounds."""
    assert await asked(strange, _shown) == ["read committed", "UTC", "10s", "1min", "1min"]


async def test_a_migration_is_read_committed_without_a_statement_timeout(strange: Settings) -> None:
    async with migrate.connect(strange) as conn:
        shown = await _shown(conn)
    assert (shown[0], shown[1], shown[3], shown[4]) == ("read committed", "UTC", "0", "0")


@pytest.fixture
async def strange_login(empty_database_url: str) -> Settings:
    """Settings of a database with a trigger that changes the settings of each session."""
    async with application.connected(empty_database_url) as conn:
        if conn.get_server_version().major < 17:
            pytest.skip("needs PostgreSQL 17: a trigger on login")
    await application.execute(empty_database_url, *_ON_LOGIN)
    return application.settings(empty_database_url)


async def test_settings_that_a_login_trigger_changes_are_set_again(strange_login: Settings) -> None:
    engine = make_engine(strange_login, bounds={"lock_timeout": "250ms"})
    async with engine.connect() as conn:
        assert (await _shown(conn))[1:3] == ["UTC", "250ms"]
    await engine.dispose()


async def test_settings_that_cannot_be_set_are_named(strange_login: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong time zone would shift naive columns without an error."""
    monkeypatch.setattr("service.store.engine._SET", "SELECT $1::text[], $2::text[]")
    with pytest.raises(SettingsError, match="lock_timeout is 1s instead of 10s, timezone is Europe/Budapest instead"):
        await asked(strange_login, _shown)


async def _command_timeout(conn: AsyncConnection) -> object:
    driver = (await conn.get_raw_connection()).driver_connection
    assert driver is not None
    return driver._config.command_timeout


async def test_a_migration_statement_has_no_timeout(empty_database_url: str) -> None:
    """asyncpg's own bound applies only to statements that the server bounds too."""
    async with migrate.connect(application.settings(empty_database_url)) as conn:
        assert await _command_timeout(conn) is None
    assert await asked(empty_database_url, _command_timeout) == 90
