"""Rows that a policy hides from the service are not absent: it does not work until it sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr

from events import ProgressLeveledUp
from service.checks import Verdict
from service.cli.doctor import examine
from service.process.runtime import Service
from service.settings import Settings
from tests.support import application
from tests.support.process import environment, levelsync
from tests.support.roles import roles
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
HIDE = ("ALTER TABLE users ENABLE ROW LEVEL SECURITY", "CREATE POLICY mine ON users USING (id < 0)")
SHOW = ("DROP POLICY mine ON users", "ALTER TABLE users DISABLE ROW LEVEL SECURITY")


@pytest.fixture
async def restricted(settings: Settings, database_url: str) -> AsyncIterator[Settings]:
    """The settings of a role that policies apply to, because it is neither superuser nor owner."""
    async with roles(database_url) as made:
        yield settings.model_copy(update={"database_url": SecretStr(made.runtime)})


async def test_it_does_not_work_while_a_policy_hides_users(
    restricted: Settings, database_url: str, topics: list[str], publish: Callable[..., Awaitable[list[int]]]
) -> None:
    """No event becomes `unknown_user`, whether the policy exists at the start or comes later."""
    assert len(topics) > 1
    await application.execute(database_url, *HIDE)
    async with Service(restricted, frozenset({"apply"})) as service:
        await publish([_event(user) for user in range(1, 6)])
        await eventually(lambda: "row-level security filters users" in str(service.health.problems))
        await application.execute(database_url, *SHOW)
        await service.ready()
        await eventually(lambda: _licensed(database_url, 5))
        await application.execute(database_url, *HIDE)
        await publish([_event(user) for user in range(6, 11)])
        await eventually(lambda: "row-level security" in str(service.health.problems))
        assert await application.value(database_url, "SELECT count(*) FROM levelsync.dead_letters") == 0
        await application.execute(database_url, *SHOW)
        await eventually(lambda: _licensed(database_url, 10))
    assert await application.value(database_url, "SELECT count(*) FROM levelsync.dead_letters") == 0


async def test_doctor_and_commands_say_so(restricted: Settings, database_url: str) -> None:
    """A command that would read too little ends with a sentence."""
    passing = {finding.check: finding.verdict for finding in await examine(restricted)}
    assert passing["Row-level security"] is Verdict.PASS
    await application.execute(database_url, *(one.replace("users", "user_licenses") for one in HIDE[:1]))
    found = {finding.check: finding for finding in await examine(restricted)}
    assert found["Row-level security"].verdict is Verdict.FAIL
    assert "user_licenses" in found["Row-level security"].detail
    drift = levelsync("drift", env=environment(restricted))
    assert drift.returncode == 3, drift.stderr
    assert "row-level security" in drift.stderr
    assert "Traceback" not in drift.stderr


def _event(user: int) -> tuple[object, ...]:
    return tuple(ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=7).to_kafka())


async def _licensed(url: str, users: int) -> bool:
    return bool(await application.value(url, "SELECT count(*) FROM user_licenses WHERE current_level = 7") == users)
