"""A record with a wrong checksum delays only its own partition, is named and is retried (law 4)."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.process import watch
from service.settings import Settings
from tests.support import applying
from tests.support.apache_kafka import ApacheKafka
from tests.support.applying import rise, running
from tests.support.servers import Kafka
from tests.support.tables import licenses
from tests.support.topics import publish
from tests.support.waiting import eventually

pytestmark = pytest.mark.real_broker


async def test_a_corrupt_record_is_retried_until_it_is_repaired(
    database: AsyncEngine, settings: Settings, kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records before it and the other partitions are applied. The wait is not a stall."""
    if not isinstance(kafka._server, ApacheKafka):
        pytest.skip("the broker's log is not ours to damage")
    for bound in ("STALL_SECONDS", "BEGIN_SECONDS"):
        monkeypatch.setattr(watch, bound, 3.0)
    send = settings.kafka_bootstrap_servers
    for user in (1, 2, 3):
        await publish(send, [rise(user, 3, 0)])
    await publish(send, [rise(user, 3, user % 3 + 1) for user in range(11, 41)])
    segment = kafka._server.folder / "data" / "progress.leveled-up-0" / f"{0:020}.log"
    flip(segment, b"e2-3")
    async with running(settings) as service:
        before = await applying.metrics(service)

        async def all_but_the_corrupt_one() -> bool:
            assert {user for user, _ in await licenses(database)} == {1, *range(11, 41)}
            return await applying.names(service, "CorruptRecordException")

        await eventually(all_but_the_corrupt_one)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(service.ended(), 4)
        counted = applying.since(before, await applying.metrics(service))
        assert counted["levelsync_retries_total", applying.labels(cause="kafka_unavailable")] > 0
        flip(segment, b"E2-3")
        await applying.caught_up(settings, database)
        await eventually(lambda: applying.is_well(service))
    assert {user for user, _ in await licenses(database)} == {1, 2, 3, *range(11, 41)}


def flip(segment: Path, text: bytes) -> None:
    """Change the case of a text in the broker's file."""
    with segment.open("r+b") as file:
        at = file.read().index(text)
        file.seek(at)
        file.write(text.swapcase())
