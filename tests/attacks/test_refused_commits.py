"""A group whose commits are refused for hours does not fill the log: positions are in PostgreSQL (law 3)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ProgressLeveledUp
from service.settings import Settings
from service.stream.consumer import LevelConsumer
from tests.support.applying import running
from tests.support.tables import licenses
from tests.support.topics import Record, publish
from tests.support.waiting import eventually


async def test_an_idle_consumer_tries_a_refused_commit_again_only_now_and_then(
    database: AsyncEngine,
    settings: Settings,
    topics: list[str],  # noqa: ARG001 - empty ones
    monkeypatch: pytest.MonkeyPatch,
    log: list[Any],
) -> None:
    """Each consumer polls five times a second; the work goes on, one line a consumer and two seconds says why."""

    async def refused(*_given: object) -> None:
        raise GroupAuthorizationFailedError("levelsync")

    monkeypatch.setattr(LevelConsumer, "commit", refused)
    event = ProgressLeveledUp(user_id=1, specialization="PLAYER", to_level=2)
    await publish(settings.kafka_bootstrap_servers, [Record(*event.to_kafka(), partition=0)])

    async def applied() -> bool:
        return await licenses(database) == {(1, "PLAYER"): 2}

    async with running(settings):
        await eventually(applied)
        said = len(log)
        await asyncio.sleep(2)  # ten polls a consumer
        lines = [line for line in log[said:] if line["event"].startswith("commit failed")]
    assert len(lines) <= 8  # twice each of four consumers
