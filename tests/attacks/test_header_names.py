"""A header's name may be any bytes (librdkafka sends what it is given): it is no reason to stand still."""

from __future__ import annotations

import base64
import time

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from sqlalchemy.ext.asyncio import AsyncEngine

from events import ProgressLeveledUp
from service.settings import Settings
from tests.support import applying
from tests.support.tables import licenses
from tests.support.topics import Record

TOPIC = ProgressLeveledUp.TOPIC


class Latin1(str):
    """A name that goes out as Latin-1."""

    __slots__ = ()

    def encode(self, *_options: str, **_more: str) -> bytes:
        return super().encode("latin-1")


async def publish_as_is(
    settings: Settings, records: list[Record], codec: str | None, patch: pytest.MonkeyPatch
) -> None:
    """Send one batch. aiokafka's compiled writer takes nothing but text; the one in Python calls `encode`."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, compression_type=codec)
    await producer.start()
    try:
        with patch.context() as patched:
            patched.setattr(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
            batch, now = producer.create_batch(), int(time.time() * 1000)
            for one in records:
                assert batch.append(key=one.key, value=one.value, timestamp=now, headers=list(one.headers))
            batch.close()
            await (await producer.send_batch(batch, TOPIC, partition=0))
    finally:
        await producer.stop()


def rise(user: int, *headers: tuple[str, bytes], value: bytes | None = None) -> Record:
    """A good record with more headers, or a bad one with another value."""
    written = ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=3).to_kafka()
    return Record(TOPIC, written.key, value or written.value, [*written.headers, *headers])


@pytest.mark.real_broker
@pytest.mark.parametrize("codec", [None, "gzip"])
async def test_a_header_whose_name_is_not_utf_8_is_ignored_like_all_others(
    database: AsyncEngine,
    settings: Settings,
    topics: list[str],  # noqa: ARG001 - empty ones
    monkeypatch: pytest.MonkeyPatch,
    codec: str | None,
) -> None:
    """Law 4: it is applied, so are its neighbours, and a bad one becomes a dead letter with the name's own bytes."""
    odd = (Latin1("größe"), b"\xff")
    await publish_as_is(
        settings, [rise(1), rise(2, odd), rise(3), rise(4, odd, value=b"{"), rise(5)], codec, monkeypatch
    )
    async with applying.running(settings):
        await applying.caught_up(settings, database)
    assert await licenses(database) == {(user, "PLAYER"): 3 for user in (1, 2, 3, 5)}
    ((headers,),) = await applying.rows(database, "SELECT headers FROM levelsync.dead_letters")
    encoded = [base64.b64encode(part).decode() for part in ("größe".encode("latin-1"), b"\xff")]
    assert headers[-1] == {"key_base64": encoded[0], "base64": encoded[1]}
