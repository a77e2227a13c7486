"""Fixtures of the end-to-end tests of the role `apply`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from structlog.testing import capture_logs

from service.process import watch
from service.settings import Settings
from service.stream import consumer
from service.stream.consumer import LevelConsumer
from tests.support.published import Setup
from tests.support.tables import empty_tables


@pytest.fixture(autouse=True)
def _looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for gauges, outages and a restored database several times a second."""
    monkeypatch.setattr(watch, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(consumer, "CHECK_EVERY", 0.5)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """End the service when a consumer stands still for three seconds."""
    for bound in ("STALL_SECONDS", "BEGIN_SECONDS"):
        monkeypatch.setattr(watch, bound, 3.0)


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """The lines that the service logs."""
    with capture_logs() as lines:
        yield lines
    for line in lines:
        print(line)  # noqa: T201 - pytest shows it for a test that failed


@pytest.fixture
async def setup(settings: Settings, topics: list[str]) -> AsyncIterator[Setup]:  # noqa: ARG001 - empty ones
    """Empty topics, empty tables, 200 users, and a model of what is published."""
    async with Setup(settings, 200) as made:
        yield made


@pytest.fixture
def consumers(monkeypatch: pytest.MonkeyPatch) -> list[LevelConsumer]:
    """The consumers that this test's services create, in that order."""
    made: list[LevelConsumer] = []
    subscribe = LevelConsumer.subscribe

    def remember(one: LevelConsumer, *arguments: Any, **options: Any) -> None:
        made.append(one)
        subscribe(one, *arguments, **options)

    monkeypatch.setattr(LevelConsumer, "subscribe", remember)
    return made


@pytest.fixture
async def database(engine: AsyncEngine, topics: list[str]) -> AsyncEngine:  # noqa: ARG001 - empty ones
    """Empty topics, and the test's database with 200 users and no level."""
    await empty_tables(engine)
    return engine
