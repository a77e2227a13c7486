"""A database for each state of the application, created once and copied for each test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from service.settings import Settings
from service.store.migrate import migrate
from tests.support import application
from tests.support.servers import Kafka, Postgres, database_name, settings_for
from tests.support.states import STATES, State
from tests.support.tokens import APPLICATION_SECRET

_TEMPLATES = pytest.StashKey[dict[str, str]]()


@pytest.fixture(params=STATES, ids=str)
def state(request: pytest.FixtureRequest) -> State:
    assert isinstance(request.param, State)
    return request.param


@pytest.fixture
async def live_url(
    state: State, postgres: Postgres, kafka: Kafka, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """The application's database before levelsync, or after `levelsync migrate` with the fixture `migrated`."""
    made = request.config.stash.setdefault(_TEMPLATES, {})
    if state.letter not in made:
        made[state.letter] = await postgres.create_database()
        await application.execute(made[state.letter], *state.statements)
    template = made[state.letter]
    if "migrated" in request.fixturenames:
        after = f"{state.letter}, migrated"
        if after not in made:
            made[after] = await postgres.create_database(database_name(template))
            await asyncio.to_thread(migrate, settings_of(state, made[after], kafka))
        template = made[after]
    url = await postgres.create_database(database_name(template))
    yield url
    await postgres.drop_database(url)


@pytest.fixture
def settings(state: State, live_url: str, kafka: Kafka) -> Settings:
    """The settings that docs/adopt.md gives for the state, with the application's key."""
    return settings_of(state, live_url, kafka)


@pytest.fixture
def migrated(live_url: str) -> str:
    """The URL of the same database after `levelsync migrate`."""
    return live_url


def settings_of(state: State, url: str, kafka: Kafka) -> Settings:
    """Return the settings of a state for one of its databases, with a new consumer group."""
    return settings_for(url, kafka, jwt_secret=APPLICATION_SECRET, reconcile_grace="300ms", **state.settings)
