"""Rights in PostgreSQL are revoked while the service runs, and granted again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial

import pytest
from pydantic import SecretStr

from events import ProgressLeveledUp
from service.process.runtime import Service
from service.settings import Settings
from tests.support import application as live
from tests.support import applying
from tests.support.roles import Roles, roles
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
BACK_WITHIN = 30
LOST = (
    ("INSERT ON license_progressions", "permission denied for table license_progressions"),
    ("SELECT ON specializations", "permission denied for table specializations"),
    ("USAGE ON SCHEMA levelsync", "permission denied for schema levelsync"),
    ("UPDATE ON levelsync.applied_offsets", "permission denied for table applied_offsets"),
)


@pytest.fixture
async def made(database_url: str) -> AsyncIterator[Roles]:
    await live.execute(database_url, "TRUNCATE user_licenses CASCADE")
    async with roles(database_url) as made:
        yield made


async def test_a_lost_grant_is_named_and_work_goes_on_when_it_is_back(
    settings: Settings, made: Roles, topics: list[str], publish: Callable[..., Awaitable[list[int]]]
) -> None:
    """Within 30 s and without a restart. It counts as a retry, and no record becomes a dead letter."""
    assert len(topics) > 1
    given = settings.model_copy(update={"database_url": SecretStr(made.runtime)})
    async with Service(given) as service:
        await service.ready()
        for level, (right, said) in enumerate(LOST, start=2):
            before = await applying.metrics(service)
            await live.execute(made.superuser, f"REVOKE {right} FROM {made.name('runtime')}")
            await publish([_event(user, level) for user in range(1, 6)])
            await eventually(partial(_is_named, service, said))
            counted = applying.since(before, await applying.metrics(service))
            assert counted["levelsync_retries_total", applying.labels(cause="installation")] > 0, right
            assert (await applying.get(service, "/livez"))[0] == 200
            await live.execute(made.superuser, f"GRANT {right} TO {made.name('runtime')}")
            await eventually(partial(_is_applied, made.superuser, level), BACK_WITHIN)
            await eventually(partial(_is_ready, service), BACK_WITHIN)
        assert await live.value(made.superuser, "SELECT count(*) FROM levelsync.dead_letters") == 0


def _event(user: int, level: int) -> tuple[object, ...]:
    return tuple(ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=level).to_kafka())


async def _is_named(service: Service, said: str) -> bool:
    return said in str(await applying.problems(service))


async def _is_applied(url: str, level: int) -> bool:
    query = f"SELECT count(*) FROM user_licenses WHERE current_level = {level}"
    return bool(await live.value(url, query) == 5)


async def _is_ready(service: Service) -> bool:
    return (await applying.get(service, "/readyz"))[0] == 200
