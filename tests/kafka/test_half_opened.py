"""A client whose start is cancelled or fails leaves no connection open."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError
from aiokafka.protocol.metadata import MetadataRequest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.apply.role import apply_role
from service.settings import Settings
from service.stream.background import stop
from service.stream.connection import admin_client, describe_cluster
from service.stream.lag import EndOffsets
from service.stream.producer import running_producer
from service.stream.topics import ensure_topics
from service.telemetry.health import Health
from tests.support.links import SilentWay

Start = Callable[[Settings], Awaitable[Any]]


async def _producer(settings: Settings) -> None:
    async with running_producer(settings):
        pass


async def _ends(settings: Settings) -> None:
    async with EndOffsets(settings) as ends:
        await ends.read()


@pytest.mark.parametrize("start", [describe_cluster, ensure_topics, _ends, _producer], ids=lambda one: one.__name__)
async def test_a_client_that_is_cancelled_at_any_answer_closes_what_it_opened(
    start: Start, settings: Settings, topics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert topics
    monkeypatch.setattr("service.stream.producer._STOP_TIMEOUT", 0.2)
    for answers in range(100):
        async with SilentWay(settings.kafka_bootstrap_servers, answers) as way:
            if not await _cancelled_in_silence(start, settings, way):
                break
            await _assert_closed(way, answers)
    assert answers > 3


async def _cancelled_in_silence(start: Start, settings: Settings, way: SilentWay) -> bool:
    """Cancel the start when the broker no longer answers; returns whether that happened."""
    theirs = settings.model_copy(update={"kafka_bootstrap_servers": way.address})
    task = asyncio.ensure_future(start(theirs))
    silent = asyncio.create_task(way.silent.wait())
    await asyncio.wait({task, silent}, timeout=30, return_when=asyncio.FIRST_COMPLETED)
    fell_silent = silent.done()
    await stop(silent)
    await stop(task)
    return fell_silent


async def _assert_closed(way: SilentWay, answers: int) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(way.closed.wait(), 2)
    assert not way.open, f"{len(way.open)} connections are open after {answers} answers"


@pytest.mark.soak
async def test_appliers_that_are_stopped_at_any_answer_close_what_they_opened(
    settings: Settings, engine: AsyncEngine, topics: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four consumers start at once. They also stop while the broker is silent."""
    assert topics
    monkeypatch.setattr("service.apply.role.GRACEFUL_TIMEOUT", -0.8)  # plus a second

    async def appliers(theirs: Settings) -> None:
        async with apply_role(engine, theirs, Health(), ""):
            await asyncio.Event().wait()

    for answers in (1, 3, 8, 20, 40, 60):
        async with SilentWay(settings.kafka_bootstrap_servers, answers) as way:
            assert await _cancelled_in_silence(appliers, settings, way)
            await _assert_closed(way, answers)


def test_a_connection_that_has_ended_is_a_fault_of_kafka_on_uvloop_too(settings: Settings) -> None:
    """uvloop raised RuntimeError for a moment, which ended the process with exit code 70."""
    uvloop = pytest.importorskip("uvloop")

    async def send_on_an_ended_connection() -> None:
        async with admin_client(settings) as client:
            kafka = client._client
            connection = await kafka._get_conn(kafka.get_random_node())
            connection._writer.transport.abort()
            await asyncio.sleep(0)
            with pytest.raises(KafkaConnectionError, match="broken: unable to perform operation"):
                await connection.send(MetadataRequest([]))
            assert not connection.connected()

    with ThreadPoolExecutor(1) as pool:
        pool.submit(uvloop.run, send_on_an_ended_connection()).result()
