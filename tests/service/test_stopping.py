"""A process that stops drains, commits and leaves its group, also where a server does not answer."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from aiokafka.errors import GroupAuthorizationFailedError
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.subscriber import until_applied
from service.settings import Settings
from service.stream.consumer import LevelConsumer
from service.telemetry.health import Health
from tests.support import applying, topics
from tests.support.applying import rise, running
from tests.support.links import Way
from tests.support.load import Load, make_load
from tests.support.process import Make
from tests.support.published import Setup
from tests.support.tables import licenses
from tests.support.topics import publish
from tests.support.waiting import eventually

SESSION_TIMEOUT = 10.0
"""Seconds after which a group gives up a member that did not say goodbye."""


@pytest.mark.real_broker
async def test_a_terminated_process_drains_commits_and_leaves_its_group(setup: Setup, levelsync_process: Make) -> None:
    """Exit code 0 within ten seconds, commits equal to the position rows, and the next start does not wait."""
    settings = setup.settings.model_copy(update={"batch_max_records": 20})
    process = levelsync_process(settings, ("serve", "--roles", "apply"))
    await setup.publish(make_load(Load(4000, 200, seed=15)))
    await process.start()
    await setup.wait_applied(500)
    began = time.monotonic()
    assert await process.terminate() == 0
    assert time.monotonic() - began < 10
    assert await topics.members(*setup.group) == []
    applied = await applying.applied(setup.engine)
    committed = await applying.committed(settings)
    assert dict.fromkeys(applied, 0) | committed == applied  # where nothing was read, nothing need be committed
    assert sum(applied.values()) < setup.published, "it was not under load: this test shows nothing"
    await setup.assert_consistent()
    began = time.monotonic()
    await process.start()
    await setup.wait_applied(sum(applied.values()) + 1)
    assert time.monotonic() - began < SESSION_TIMEOUT
    await setup.assert_ended()
    assert await process.terminate() == 0


async def test_a_process_leaves_though_its_database_is_silent(setup: Setup, levelsync_process: Make) -> None:
    """Within ten seconds, although a batch and every connection hang."""
    async with Way(setup.settings.database_url.get_secret_value()) as way:
        settings = setup.settings.model_copy(update={"batch_max_records": 20, "database_url": way.url})
        process = levelsync_process(settings, ("serve",))
        await process.start()
        await setup.publish(make_load(Load(2000, 200, seed=41)))
        await setup.wait_applied(200)
        way.open.clear()
        assert await setup.applied() < setup.published, "it was not under load: this test shows nothing"
        began = time.monotonic()
        code = await process.terminate(30)
        assert time.monotonic() - began < 10, process.output
        assert code == 0
    await setup.assert_nothing_half_done()


async def test_an_idle_consumer_tries_a_refused_commit_again_only_now_and_then(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    """Each consumer polls five times a second, and logs a refused commit about once in two seconds."""

    async def refused(*_given: object) -> None:
        raise GroupAuthorizationFailedError("levelsync")

    monkeypatch.setattr(LevelConsumer, "commit", refused)
    await publish(settings.kafka_bootstrap_servers, [rise(1, 2, 0)])

    async def applied() -> bool:
        return await licenses(database) == {(1, "PLAYER"): 2}

    async with running(settings):
        await eventually(applied)
        said = len(log)
        await asyncio.sleep(2)  # ten polls a consumer
        lines = [line for line in log[said:] if line["event"].startswith("commit failed")]
    assert len(lines) <= 8  # twice each of four consumers


class Owner:
    """A consumer that still owns its batch."""

    retrying = False
    owns_batch = True


async def test_a_stop_ends_an_attempt_that_hangs() -> None:
    began = asyncio.Event()

    async def hangs() -> None:
        began.set()
        await asyncio.Event().wait()

    batch = asyncio.create_task(until_applied(hangs, Owner(), Health()))
    await asyncio.wait_for(began.wait(), 30)
    batch.cancel()
    ended, _ = await asyncio.wait({batch}, timeout=10)
    try:
        assert ended == {batch}
        assert batch.cancelled()
    finally:
        while not batch.done():  # a retry that suppresses a cancellation can be cancelled while it waits
            batch.cancel()
            await asyncio.sleep(0.001)
