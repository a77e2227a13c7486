"""A consumer that stands still without a reason ends the process. A bug of ours skips no record (law 4)."""

from __future__ import annotations

import asyncio
import json
from functools import partialmethod
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import CorruptRecordException
from sqlalchemy.ext.asyncio import AsyncEngine

from service.core.decode import decode
from service.process import watch
from service.process.watch import Stalled
from service.settings import Settings
from service.stream import consumer
from service.stream.consumer import LevelConsumer
from tests.support import applying
from tests.support.applying import TOPICS, rise, running
from tests.support.load import Load, make_load
from tests.support.published import Setup
from tests.support.tables import licenses
from tests.support.topics import publish, send
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker
PARTITION = TopicPartition(TOPICS[0], 0)


async def _all_started(consumers: list[LevelConsumer]) -> bool:
    return all(one.owned_positions() for one in consumers if PARTITION.topic in one.subscription())


async def test_a_consumer_that_stands_still_with_lag_ends_the_service_and_says_where(
    database: AsyncEngine, settings: Settings, consumers: list[LevelConsumer], monkeypatch: pytest.MonkeyPatch
) -> None:
    """/livez fails, and the service ends with `Stalled`. Without lag there is no standstill."""
    monkeypatch.setattr(watch, "STALL_SECONDS", 1.0)
    async with running(settings) as service:
        await applying.caught_up(settings, database)
        await eventually(lambda: _all_started(consumers))  # the start of a new assignment would end the pause
        (stuck,) = [one for one in consumers if PARTITION in one.assignment()]
        stuck.pause(*stuck.assignment())
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.ended(), 1.5)  # longer than STALL_SECONDS, but nothing to do
        await publish(settings.kafka_bootstrap_servers, [rise(1, 3, 0)])
        with pytest.raises(Stalled, match=r"progress\.leveled-up-0 at 0 of 1"):
            await asyncio.wait_for(service.ended(), 60)
        status, body = await applying.get(service, "/livez")
        assert status == 503
        assert "progress.leveled-up-0 at 0 of 1" in json.loads(body)["reason"]
        assert (await applying.get(service, "/readyz"))[0] == 503


@pytest.mark.usefixtures("database")
async def test_partitions_that_never_begin_end_the_service(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """For example because the group's coordinator does not answer."""

    async def says_nothing(*_given: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(watch, "STALL_SECONDS", 0.5)
    monkeypatch.setattr(watch, "BEGIN_SECONDS", 0.5)
    monkeypatch.setattr(LevelConsumer, "committed", says_nothing)
    await publish(settings.kafka_bootstrap_servers, [rise(1, 2, 0)])
    async with running(settings) as service:
        with pytest.raises(Stalled, match=r"progress\.leveled-up-0 not started, its end is 1"):
            await asyncio.wait_for(service.ended(), 10)


async def test_a_publishers_open_transaction_is_no_standstill(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer of committed records has to wait for the transaction's end."""
    monkeypatch.setattr(watch, "STALL_SECONDS", 0.5)
    async with running(settings) as service, applying.transactional(settings) as producer:
        await applying.caught_up(settings, database)
        await producer.begin_transaction()
        await (await send(producer, rise(1, 3, 0)))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.ended(), 2)
        await producer.commit_transaction()
        await applying.caught_up(settings, database)
    assert await licenses(database) == {(1, "PLAYER"): 3}


class OnceInAWhile:
    """A call that raises an unexpected error except every third time."""

    def __init__(self, real: Any) -> None:
        self.real = real
        self.calls = 0

    def __call__(self, *arguments: Any) -> Any:
        self.calls += 1
        if self.calls % 3:
            raise RuntimeError("a bug")
        return self.real(*arguments)


async def test_an_unknown_exception_is_retried(setup: Setup, monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
    """It is named in /readyz and in the log, counted, and then the records are applied."""
    monkeypatch.setattr("service.apply.batch.decode", OnceInAWhile(decode))
    await setup.publish(make_load(Load(300, 50, seed=17, bad=0.05)))
    async with running(setup.settings) as service:
        before = await applying.metrics(service)
        await eventually(lambda: applying.names(service, "a bug"))
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
        await eventually(lambda: applying.is_well(service))
        counted = applying.since(before, await applying.metrics(service))
    assert counted["levelsync_retries_total", applying.labels(cause="installation")] > 0
    assert {line["bug"] for line in log if line["event"] == "batch is retried"} == {"RuntimeError"}


async def test_a_handler_that_fails_outside_of_the_retries_gets_its_batch_again(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, log: list[Any]
) -> None:
    """FastStream suppresses a handler's exception. The consumer sees that the batch was not finished."""
    monkeypatch.setattr(consumer, "POLL_BACKOFF", 0.1)
    monkeypatch.setattr(LevelConsumer, "finish", partialmethod(OnceInAWhile(LevelConsumer.finish)))
    await setup.publish(make_load(Load(300, 50, seed=18, bad=0.05)))
    async with running(setup.settings):
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
    assert any("Unfinished" in line.get("error", "") for line in log)


async def test_a_failed_poll_loses_no_record(setup: Setup, monkeypatch: pytest.MonkeyPatch, log: list[Any]) -> None:
    """A checksum fails after other partitions were drained. /readyz names it, and all is read again."""
    monkeypatch.setattr(consumer, "POLL_BACKOFF", 0.1)
    broken = asyncio.Event()
    broken.set()
    monkeypatch.setattr(AIOKafkaConsumer, "getmany", _failing_while(broken, AIOKafkaConsumer.getmany))
    await setup.publish(make_load(Load(600, 50, seed=19, bad=0.05)))
    async with running(setup.settings.model_copy(update={"batch_max_records": 50})) as service:
        await eventually(lambda: applying.names(service, "a checksum"))
        broken.clear()
        await setup.assert_ended()
        await applying.caught_up(setup.settings, setup.engine)
        await eventually(lambda: applying.is_well(service))
    assert any("CorruptRecordException" in line.get("error", "") for line in log)


def _failing_while(broken: asyncio.Event, getmany: Any) -> Any:
    """Return a poll that loses its records, as aiokafka's does when the next partition cannot be read."""

    async def poll(self: Any, *arguments: Any, **options: Any) -> Any:
        records = await getmany(self, *arguments, **options)
        if records and broken.is_set():
            raise CorruptRecordException("a checksum")
        return records

    return poll
