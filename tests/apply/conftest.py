"""Fixtures of the tests that apply events."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.store.engine import make_engine
from tests.support.applier import Events, Partitions, fresh
from tests.support.interference import Setup
from tests.support.links import Way
from tests.support.tables import empty_tables


@pytest.fixture
async def events(engine: AsyncEngine) -> Events:
    """A consumer of both topics on the test's database, which has 200 users and no level."""
    await empty_tables(engine)
    return await Events(engine).begin()


@pytest.fixture
async def partitions(engine: AsyncEngine) -> Partitions:
    """A consumer of each topic on the test's database, which has 200 users and no level."""
    return await fresh(engine)


@pytest.fixture
async def setup(engine: AsyncEngine, settings: Settings) -> AsyncIterator[Setup]:
    """Two sessions, one of them over a link that can be stopped before any round trip."""
    async with Way(settings.database_url.get_secret_value()) as link:
        stopped = make_engine(settings.model_copy(update={"database_url": link.url}))
        yield Setup(batch=stopped, other=engine, link=link)
        link.go_on()
        await stopped.dispose()
