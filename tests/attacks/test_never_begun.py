"""A consumer that never begins the partitions it was given stands still as well (issue: silent consumers)."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ProgressLeveledUp
from service.process import watch
from service.process.watch import Stalled
from service.settings import Settings
from service.stream.consumer import LevelConsumer
from tests.support.applying import running
from tests.support.topics import Record, publish


async def test_partitions_that_are_never_begun_end_the_service(
    database: AsyncEngine,  # noqa: ARG001 - empty tables
    settings: Settings,
    topics: list[str],  # noqa: ARG001 - empty ones
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it waits for says no word: an answer of the group's coordinator, for one."""

    async def says_nothing(*_given: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(watch, "LOOK_EVERY", 0.2)
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(watch, "BEGIN_SECONDS", 0.5)
    monkeypatch.setattr(LevelConsumer, "committed", says_nothing)
    event = ProgressLeveledUp(user_id=1, specialization="PLAYER", to_level=2)
    await publish(settings.kafka_bootstrap_servers, [Record(*event.to_kafka(), partition=0)])
    async with running(settings) as service:
        with pytest.raises(Stalled, match=r"progress\.leveled-up-0 not begun, 1 there"):
            await asyncio.wait_for(service.ended(), 10)
