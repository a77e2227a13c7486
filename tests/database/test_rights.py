"""deploy/postgresql/rights.sql gives each role what it needs, and `doctor` names what is missing."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest
from pydantic import SecretStr

from service.checks import rights
from service.checks.result import Finding
from service.settings import Settings
from service.store.engine import make_engine
from tests.support import application
from tests.support.roles import Roles, roles
from tests.support.servers import Postgres


@pytest.fixture
async def made(empty_database_url: str, postgres: Postgres) -> AsyncIterator[Roles]:
    """The roles in an application's database that the migrator migrated, granted before and after."""
    assert postgres.url
    await application.make_application(empty_database_url)
    async with roles(empty_database_url) as made:
        await application.upgrade(made.migrator)
        await made.grant()
        yield made


async def _check(url: str) -> Finding:
    engine = make_engine(application.settings(url), pool_size=1)
    async with engine.connect() as conn:
        found = await rights(conn)
    await engine.dispose()
    return found


async def test_each_role_has_what_it_needs_and_no_more(made: Roles) -> None:
    assert (await _check(made.runtime)).passed
    for statement in (
        "DELETE FROM user_licenses",
        "UPDATE users SET name = 'x'",
        "CREATE TABLE levelsync.x ()",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(made.runtime, statement)
    assert await application.value(made.reader, "SELECT count(*) FROM levelsync.pairs") == 1
    for statement in ("SELECT * FROM levelsync.dead_letters", "UPDATE user_licenses SET current_level = 1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(made.reader, statement)


MISSING = [
    ("SELECT ON users", "SELECT on users"),
    ("UPDATE (id) ON users", "UPDATE (id) on users"),
    ("INSERT ON specialization_progress", "INSERT on specialization_progress"),
    ("UPDATE ON user_licenses", "UPDATE on user_licenses"),
    ("INSERT ON license_progressions", "INSERT on license_progressions"),
    ("USAGE ON SEQUENCE user_licenses_id_seq", "USAGE on sequence user_licenses_id_seq"),
    ("USAGE ON SCHEMA levelsync", "USAGE on schema levelsync"),
    ("DELETE ON levelsync.outbox", "DELETE on levelsync.outbox"),
    ("SELECT ON levelsync.pairs", "SELECT on levelsync.pairs"),
]


async def test_each_missing_right_is_named(made: Roles) -> None:
    """The check reads only the catalogue."""
    name = made.name("runtime")
    for revoked, said in MISSING:
        await application.execute(made.superuser, f"REVOKE {revoked} FROM {name}")
        found = await _check(made.runtime)
        assert not found.passed, revoked
        assert said in found.detail, (revoked, found.detail)
        await made.grant()
    await application.execute(made.superuser, "CREATE FUNCTION levelsync.later() RETURNS int LANGUAGE sql RETURN 1",
                       "REVOKE EXECUTE ON FUNCTION levelsync.later FROM PUBLIC")  # fmt: skip
    assert "EXECUTE on function levelsync.later" in (await _check(made.runtime)).detail


async def test_a_superuser_passes(settings: Settings) -> None:
    assert isinstance(settings.database_url, SecretStr)
    assert (await _check(settings.database_url.get_secret_value())).passed
