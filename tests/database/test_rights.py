"""Rights in PostgreSQL: deploy/postgresql/rights.sql, grants that are lost and given back, and policies that hide rows.

Rows that a policy hides from the service are not absent, so it does not work until it sees them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import asyncpg
import pytest
from pydantic import SecretStr

from service.checks import Verdict, rights
from service.cli.doctor import examine
from service.process.runtime import Service
from service.settings import Settings
from tests.support import application, applying
from tests.support.process import assert_refused, environment, levelsync
from tests.support.roles import Roles, roles
from tests.support.topics import Publish, raised
from tests.support.waiting import eventually

BACK_WITHIN = 30
LOST = (
    ("INSERT ON license_progressions", "permission denied for table license_progressions"),
    ("SELECT ON specializations", "permission denied for table specializations"),
    ("USAGE ON SCHEMA levelsync", "permission denied for schema levelsync"),
    ("UPDATE ON levelsync.applied_offsets", "permission denied for table applied_offsets"),
)
HIDE = ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", "CREATE POLICY mine ON users USING (id < 0)")
SHOW = ("DROP POLICY mine ON users", "ALTER TABLE users DISABLE ROW LEVEL SECURITY")


@pytest.fixture
async def made(empty_database_url: str) -> AsyncIterator[Roles]:
    """The roles in an application's database that the migrator migrated, granted before and after."""
    await application.make_application(empty_database_url)
    async with roles(empty_database_url) as made:
        await application.upgrade(made.migrator)
        await made.grant()
        yield made


async def test_each_role_has_what_it_needs_and_no_more(made: Roles) -> None:
    assert (await application.asked(made.runtime, rights)).passed
    assert await application.value(made.reader, "SELECT count(*) FROM levelsync.pairs") == 1
    for url, statement in (
        (made.runtime, "DELETE FROM user_licenses"),
        (made.runtime, "UPDATE users SET name = 'x'"),
        (made.runtime, "CREATE TABLE levelsync.x ()"),
        (made.reader, "SELECT * FROM levelsync.dead_letters"),
        (made.reader, "UPDATE user_licenses SET current_level = 1"),
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await application.execute(url, statement)


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
    name = made.name("runtime")
    for revoked, said in MISSING:
        await application.execute(made.superuser, f"REVOKE {revoked} FROM {name}")
        found = await application.asked(made.runtime, rights)
        assert not found.passed, revoked
        assert said in found.detail, (revoked, found.detail)
        await made.grant()
    await application.execute(made.superuser, "CREATE FUNCTION levelsync.later() RETURNS int LANGUAGE sql RETURN 1",
                       "REVOKE EXECUTE ON FUNCTION levelsync.later FROM PUBLIC")  # fmt: skip
    assert "EXECUTE on function levelsync.later" in (await application.asked(made.runtime, rights)).detail


async def test_a_superuser_passes(settings: Settings) -> None:
    assert isinstance(settings.database_url, SecretStr)
    assert (await application.asked(settings.database_url.get_secret_value(), rights)).passed


@pytest.fixture
async def runtime(database_url: str) -> AsyncIterator[Roles]:
    """The roles in the test's database, for a service that is neither superuser nor owner."""
    async with roles(database_url) as made:
        yield made


@pytest.fixture
def restricted(settings: Settings, runtime: Roles) -> Settings:
    """The settings of the runtime role, to which policies apply."""
    return settings.model_copy(update={"database_url": SecretStr(runtime.runtime)})


@pytest.mark.real_broker
@pytest.mark.usefixtures("topics")
async def test_a_lost_grant_is_named_until_it_is_back(restricted: Settings, runtime: Roles, publish: Publish) -> None:
    """Work goes on within 30 s, without a restart. It counts as a retry, and no record becomes a dead letter."""
    url, role = runtime.superuser, runtime.name("runtime")
    await application.execute(url, "TRUNCATE user_licenses CASCADE")
    async with Service(restricted) as service:
        await service.ready()
        for level, (right, said) in enumerate(LOST, start=2):
            before = await applying.metrics(service)
            await application.execute(url, f"REVOKE {right} FROM {role}")
            await publish([raised(user, level) for user in range(1, 6)])
            await eventually(partial(applying.names, service, said))
            counted = applying.since(before, await applying.metrics(service))
            assert counted["levelsync_retries_total", applying.labels(cause="installation")] > 0, right
            assert (await applying.get(service, "/livez"))[0] == 200
            await application.execute(url, f"GRANT {right} TO {role}")
            await eventually(partial(_licensed, url, 5, level), BACK_WITHIN)
            await eventually(partial(applying.is_well, service), BACK_WITHIN)
    assert await application.value(url, "SELECT count(*) FROM levelsync.dead_letters") == 0


@pytest.mark.real_broker
@pytest.mark.usefixtures("topics")
async def test_events_wait_while_policies_hide_users(restricted: Settings, database_url: str, publish: Publish) -> None:
    """No event becomes `unknown_user`, whether the policy exists at the start or comes later."""
    await application.execute(database_url, *HIDE)
    async with Service(restricted, frozenset({"apply"})) as service:
        await publish([raised(user) for user in range(1, 6)])
        await eventually(lambda: "row-level security filters users" in str(service.health.problems))
        await application.execute(database_url, *SHOW)
        await service.ready()
        await eventually(lambda: _licensed(database_url, 5))
        await application.execute(database_url, *HIDE)
        await publish([raised(user) for user in range(6, 11)])
        await eventually(lambda: "row-level security" in str(service.health.problems))
        assert await application.value(database_url, "SELECT count(*) FROM levelsync.dead_letters") == 0
        await application.execute(database_url, *SHOW)
        await eventually(lambda: _licensed(database_url, 10))
    assert await application.value(database_url, "SELECT count(*) FROM levelsync.dead_letters") == 0


async def test_doctor_and_commands_say_that_a_policy_hides_rows(restricted: Settings, database_url: str) -> None:
    """A command that would read too little ends with a sentence."""
    passing = {finding.check: finding.verdict for finding in await examine(restricted)}
    assert passing["Row-level security"] is Verdict.PASS
    await application.execute(database_url, *(one.replace("users", "user_licenses") for one in HIDE[:1]))
    found = {finding.check: finding for finding in await examine(restricted)}
    assert found["Row-level security"].verdict is Verdict.FAIL
    assert "user_licenses" in found["Row-level security"].detail
    run = levelsync("drift", env=environment(restricted))
    assert_refused(run, 3, "row-level security")


async def _licensed(url: str, users: int, level: int = 7) -> bool:
    count = f"SELECT count(*) FROM user_licenses WHERE current_level = {level}"
    return bool(await application.value(url, count) == users)
