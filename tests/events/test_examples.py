"""The examples run as they are."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer

from events import LicenseAdvanced, ProgressLeveledUp, read, read_line
from tests.support.servers import Kafka

EXAMPLES = Path(__file__).parents[2] / "examples"
MAXIMUM = {"PLAYER": 8, "COACH": 8, "INTERNSHIP": 3}


def test_sample_events_suit_the_sample_users() -> None:
    """Twelve events of both types, for users and levels that a new database has."""
    events = [read_line(line) for line in (EXAMPLES / "events.jsonl").read_text("utf-8").splitlines()]
    assert Counter(type(event) for event in events) == {ProgressLeveledUp: 8, LicenseAdvanced: 4}
    assert len({event.id for event in events}) == 12
    for event in events:
        assert isinstance(event, ProgressLeveledUp | LicenseAdvanced)
        assert 1 <= event.user_id <= 200
        assert event.to_level <= MAXIMUM[event.specialization]


async def test_hooks_example_relays_both_events(database_url: str, kafka: Kafka, topics: list[str]) -> None:
    assert topics
    said = await _run("application_hooks.py", kafka, LEVELSYNC_DATABASE_URL=database_url)
    assert said.startswith("2 events relayed\n")
    assert said.endswith("user 42 is at level 5 in PLAYER, whatever was published before\n")
    assert [_shape(event) for event in await _published(kafka, 2)] == [
        (LicenseAdvanced, 42, "COACH", 4),
        (ProgressLeveledUp, 42, "PLAYER", 7),
    ]


async def test_publisher_example_publishes_both_events(kafka: Kafka, topics: list[str]) -> None:
    assert topics
    said = await _run("publish_with_aiokafka.py", kafka)
    assert said.count(" is in ") == 2
    assert [_shape(event) for event in await _published(kafka, 2)] == [
        (LicenseAdvanced, 42, "COACH", 4),
        (ProgressLeveledUp, 42, "PLAYER", 5),
    ]


async def _run(script: str, kafka: Kafka, **environment: str) -> str:
    """Return what a script prints."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(EXAMPLES / script),
        env=os.environ | environment | {"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap_servers},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err.decode()
    return out.decode()


async def _published(kafka: Kafka, count: int) -> list[Any]:
    """Return the first events of both topics, ordered by topic."""
    names = (ProgressLeveledUp.TOPIC, LicenseAdvanced.TOPIC)
    records: list[Any] = []
    async with AIOKafkaConsumer(
        *names, bootstrap_servers=kafka.bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        async with asyncio.timeout(30):
            while len(records) < count:
                records.append(await consumer.getone())
    return [read(r.topic, r.value, r.headers, r.timestamp).event for r in sorted(records, key=lambda r: r.topic)]


def _shape(event: Any) -> tuple[type, int, str, int]:
    return type(event), event.user_id, event.specialization, event.to_level
