"""The fixtures of the whole suite."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from events import PROGRESS_LEVELED_UP_TOPIC, TOPICS
from tests.support.servers import Kafka
from tests.support.topics import Publish, Record, ends
from tests.support.waiting import eventually

USERS = "SELECT count(*) FROM public.users"


@pytest.mark.parametrize("turn", [1, 2])
async def test_what_one_test_writes_another_does_not_see(engine: AsyncEngine, turn: int) -> None:
    """Both turns find the template's 200 users, although each removes them."""
    async with engine.begin() as connection:
        assert await connection.scalar(text(USERS)) == 200, turn
        await connection.execute(text("TRUNCATE public.users CASCADE"))


@pytest.mark.parametrize("turn", [1, 2])
async def test_topics_are_empty_for_each_test(kafka: Kafka, topics: list[str], publish: Publish, turn: int) -> None:
    assert set(topics) == set(TOPICS), turn
    assert await publish([Record(PROGRESS_LEVELED_UP_TOPIC, b"1", b"{}", partition=3)]) == [0]
    partition = TopicPartition(PROGRESS_LEVELED_UP_TOPIC, 3)
    assert await ends(kafka.bootstrap_servers, [partition]) == {partition: 1}


async def test_records_keep_their_order_headers_and_time(kafka: Kafka, topics: list[str], publish: Publish) -> None:
    sent = [Record(topics[0], b"7", b"%d" % n, [("h", b"")], 1_700_000_000_000 + n, 1) for n in range(500)]
    await publish(sent)
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topics[0], 1)])
        read = [await consumer.getone() for _ in sent]
    assert [(r.key, r.value, r.headers, r.timestamp) for r in read] == [
        (r.key, r.value, tuple(r.headers), r.timestamp_ms) for r in sent
    ]


async def test_a_record_of_ten_megabytes_is_taken(topics: list[str], publish: Publish) -> None:
    assert await publish([Record(topics[0], b"1", b"x" * 10_000_000, partition=0)]) == [0]


async def test_eventually_returns_the_value_and_names_what_was_missing() -> None:
    values = iter([0, None, "there"])
    assert await eventually(lambda: next(values)) == "there"
    with pytest.raises(AssertionError, match=r"not within 0.1 s: \[\]"):
        await eventually(list, timeout=0.1)
