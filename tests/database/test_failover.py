"""A failover behind one address: the old primary becomes read-only and keeps its connections."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from service.process.runtime import Service
from service.settings import Settings
from service.store.engine import make_engine
from tests.support import application, servers
from tests.support.links import Way
from tests.support.outbox import put_numbered
from tests.support.servers import Postgres
from tests.support.topics import Publish, raised
from tests.support.waiting import eventually

_USER = "CREATE ROLE failover SUPERUSER LOGIN PASSWORD 'x'"
_BACK_WITHIN = 30


@pytest.fixture
async def both(own_postgres: Postgres, postgres: Postgres, template_database: str) -> AsyncIterator[tuple[str, str]]:
    """The same database on the old and on the new primary, with one user."""
    name = await servers.make_template(own_postgres)
    await postgres.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template_database}"')
    for server in (own_postgres, postgres):
        await server.execute(_USER)
    places = (server.url.rpartition("@")[2].rpartition("/")[0] for server in (own_postgres, postgres))
    old, new = (f"postgresql://failover:x@{place}/{name}" for place in places)
    yield old, new
    await postgres.drop_database(postgres.url_of(name))
    await postgres.execute("DROP ROLE failover")


@pytest.mark.real_broker
@pytest.mark.usefixtures("topics")
async def test_work_goes_on_at_the_new_primary(both: tuple[str, str], settings: Settings, publish: Publish) -> None:
    old, new = both
    async with Way(old) as way:
        given = settings.model_copy(update={"database_url": way.url})
        async with Service(given, frozenset({"apply", "relay"})) as service:
            await service.ready()
            await publish([raised(1)])
            await eventually(lambda: _level(old, 1))
            way.lead_to(new)
            read_only = ("ALTER SYSTEM SET default_transaction_read_only = on", "SELECT pg_reload_conf()")
            await application.execute(old, *read_only)
            await publish([raised(2)])
            await _put(new)
            await eventually(lambda: _level(new, 2), _BACK_WITHIN)
            await eventually(lambda: _nothing_in_the_outbox(new), _BACK_WITHIN)
            await eventually(lambda: service.health.ready, _BACK_WITHIN)


async def _level(url: str, user: int) -> bool:
    query = f"SELECT current_level FROM user_licenses WHERE user_id = {user} AND specialization_type = 'PLAYER'"
    return bool(await application.value(url, query) == 7)


async def _nothing_in_the_outbox(url: str) -> bool:
    return bool(await application.value(url, "SELECT count(*) FROM levelsync.outbox") == 0)


async def _put(url: str) -> None:
    engine = make_engine(application.settings(url), pool_size=1)
    await put_numbered(engine, [(3, 1)])
    await engine.dispose()
