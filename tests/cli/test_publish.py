"""`levelsync publish`: one event, a file of them, and `--wait`, which reports what became of exactly this record."""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaTimeoutError, NotLeaderForPartitionError
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from events import LicenseAdvanced, ProgressLeveledUp, read
from service.cli.publish import read_pieces
from service.cli.publish_wait import OffsetRanges, Sent, letters_of
from service.local import EmbeddedBroker
from service.settings import Settings
from service.store.tables import dead_letters
from service.stream.lag import EndOffsets
from service.stream.producer import MAX_REQUEST_BYTES, NotDelivered, deliver
from tests.support.process import Make, Result, assert_refused, environment, levelsync

OPTIONS = ("--user", "42", "--specialization", "PLAYER", "--to-level", "5")


def line(user: int) -> str:
    return ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=2).to_structured()


async def records(settings: Settings) -> list[ConsumerRecord]:
    async with EndOffsets(settings) as kafka:
        ends = await kafka.read()
    found: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(
        bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest"
    ) as consumer:
        consumer.assign([partition for partition, end in ends.items() if end])
        while len(found) < sum(ends.values()):
            found += [r for part in (await consumer.getmany(timeout_ms=1000)).values() for r in part]
    return found


@pytest.mark.usefixtures("topics")
async def test_one_event_is_in_kafka_where_the_command_says(settings: Settings) -> None:
    attributes = ("--id", "my-id", "--source", "/here", "--time", "2026-01-31T12:00:00Z", "--from-level", "4")
    run = levelsync("publish", "leveled-up", *OPTIONS, *attributes, "--json", env=environment(settings))
    assert run.returncode == 0, run.stderr
    (record,) = await records(settings)
    received = read(record.topic, record.value, record.headers, record.timestamp)
    data = {"user_id": 42, "specialization": "PLAYER", "to_level": 5, "from_level": 4}
    assert received.event.model_dump() == data
    assert (received.id, received.source) == ("my-id", "/here")
    assert received.occurred_at.isoformat() == "2026-01-31T12:00:00+00:00"
    where = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    assert json.loads(run.stdout) == where | {"id": "my-id", "type": "progress.leveled-up.v1"}


@pytest.mark.usefixtures("topics")
async def test_a_license_event_carries_who_and_why(settings: Settings) -> None:
    more = ("--advanced-by", "2", "--reason", "exam", "--requirements-met", "all")
    run = levelsync("publish", "license-advanced", *OPTIONS, *more, env=environment(settings))
    assert run.returncode == 0, run.stderr
    (record,) = await records(settings)
    assert record.topic == "license.advanced"
    expected = {"advanced_by": 2, "reason": "exam", "requirements_met": "all"}
    data = LicenseAdvanced.model_validate_json(record.value).model_dump()
    assert {name: data[name] for name in expected} == expected


@pytest.mark.usefixtures("topics")
async def test_a_file_is_published_whole(settings: Settings, tmp_path: Path) -> None:
    """Empty lines are skipped, and the last line needs no end."""
    file = tmp_path / "events.jsonl"
    file.write_text("\n\n".join(line(user) for user in range(1, 301)))
    run = levelsync("publish", "--file", str(file), "--json", env=environment(settings))
    assert (run.returncode, json.loads(run.stdout), run.stderr) == (0, {"sent": 300}, "")
    assert {int(record.key) for record in await records(settings)} == set(range(1, 301))


@pytest.mark.usefixtures("topics")
async def test_a_bad_line_is_named_and_nothing_after_it_is_sent(settings: Settings) -> None:
    text = "\n".join([line(1), "", line(2), '{"specversion": "1.0"}', line(3)])
    run = levelsync("publish", "--file", "-", stdin=text, env=environment(settings))
    assert_refused(run, 2, "line 4:", "2 events before it are sent")
    assert sorted(record.key for record in await records(settings)) == [b"1", b"2"]


def test_missing_topics_are_named_where_they_may_not_be_created_and_created_elsewhere() -> None:
    with EmbeddedBroker() as broker:
        settings = {"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        for _ in range(2):  # the check creates no topic
            run = levelsync(
                "publish", "leveled-up", *OPTIONS, env=settings | {"LEVELSYNC_KAFKA_CREATE_TOPICS": "false"}
            )
            assert_refused(run, 3, "progress.leveled-up", "LEVELSYNC_KAFKA_CREATE_TOPICS")
        # The embedded broker has no idempotent producers, and is recognized by its cluster id.
        assert levelsync("publish", "leveled-up", *OPTIONS, env=settings).returncode == 0


class Producer:
    """A producer whose deliveries end as given."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = iter(ends)

    async def send(self, *_: object, **__: object) -> asyncio.Future[object]:
        future: asyncio.Future[object] = asyncio.get_running_loop().create_future()
        end = next(self._ends)
        if isinstance(end, KafkaTimeoutError):
            raise end
        future.set_result(object()) if end is None else future.set_exception(end)
        return future


@pytest.mark.parametrize(
    ("ends", "confirmed"),
    [
        ([NotLeaderForPartitionError(), None, None], 0),
        ([None, NotLeaderForPartitionError(), None], 1),
        ([None, None, KafkaTimeoutError()], 2),
    ],
)
async def test_nothing_after_a_failed_delivery_is_claimed_as_sent(ends: list[Exception | None], confirmed: int) -> None:
    message = ProgressLeveledUp(user_id=1, specialization="PLAYER", to_level=2).to_kafka()
    with pytest.raises(NotDelivered) as failure:
        await deliver(Producer(*ends), [message] * len(ends))
    assert failure.value.confirmed == confirmed


def test_an_endless_line_does_not_fill_the_memory() -> None:
    stream = io.BufferedReader(io.BytesIO(b"good\n" + b"x" * (5 * MAX_REQUEST_BYTES)))
    *_, (last,) = read_pieces(stream)
    assert MAX_REQUEST_BYTES < len(last) < 2 * MAX_REQUEST_BYTES


ONE = ("publish", "leveled-up", "--specialization", "PLAYER", "--to-level")


async def run(*arguments: str, env: Mapping[str, str], stdin: str | None = None) -> Result:
    return await asyncio.to_thread(levelsync, *arguments, env=env, stdin=stdin)


@pytest.mark.usefixtures("topics")
async def test_wait_says_what_became_of_the_record(settings: Settings, levelsync_process: Make, tmp_path: Path) -> None:
    env = environment(settings)
    service = levelsync_process(arguments=("serve", "--roles", "apply"))
    await service.start()
    event = (*ONE, "7", "--user", "42", "--id", "seven", "--source", "/here", "--wait")
    first = await run(*event, "--json", env=env)
    assert first.returncode == 0, first.stderr
    history = json.loads(first.stdout)["history"]
    assert (history["to_level"], history["reason"]) == (7, "ProgressLeveledUp /here seven")
    again = await run(*event, env=env)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "read; the level is 7")
    bad = await run(*ONE, "5", "--user", "4242", "--wait", env=env)
    assert (bad.returncode, "unknown_user" in bad.stdout.splitlines()[-1]) == (1, True)
    file = tmp_path / "events.jsonl"
    events = [ProgressLeveledUp(user_id=user, specialization="COACH", to_level=5) for user in (1, 4243, 2)]
    file.write_text("\n".join(one.to_structured() for one in events))
    several = await run("publish", "--file", str(file), "--wait", env=env)
    assert (several.returncode, several.stdout) == (1, "3 events sent and read; 1 dead letter: unknown_user 1\n")
    assert await service.terminate() == 0
    late = await run(*ONE, "8", "--user", "42", "--wait", "--timeout", "1s", env=env)
    assert (late.returncode, late.stdout) == (3, "")
    assert re.search(r"No applier has read progress\.leveled-up partition \d offset \d+ within 1 s", late.stderr)


@pytest.mark.usefixtures("topics")
async def test_what_will_be_a_dead_letter_is_a_warning(settings: Settings) -> None:
    """It is published anyway. An unreachable database causes neither a warning nor a wait."""
    env = environment(settings)
    chef = ("--user", "4242", "--specialization", "CHEF", "--to-level", "5")
    warned = await run("publish", "leveled-up", *chef, env=env)
    assert warned.returncode == 0
    assert "there is no specialization CHEF; there are COACH, INTERNSHIP, PLAYER" in warned.stderr
    assert "there is no user 4242" in warned.stderr
    high = await run(*ONE, "99", "--user", "42", env=env)
    assert "PLAYER has the levels 1 to 8, not 99" in high.stderr
    nowhere = env | {"LEVELSYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    silent = await run(*ONE, "99", "--user", "42", env=nowhere)
    assert (silent.returncode, silent.stderr) == (0, "")
    asked = await run(*ONE, "99", "--user", "42", "--wait", env=nowhere)
    assert (asked.returncode, asked.stdout) == (3, "")


def place(offset: int, partition: int = 0) -> Any:
    return SimpleNamespace(topic="t", partition=partition, offset=offset, timestamp=1000 + offset)


@pytest.mark.parametrize(
    ("row", "is_read"),
    [
        ({}, True),
        *((row, False) for row in ({"next_offset": 7}, {"cluster_id": "elsewhere"}, {"partition": 1})),
        *(({"topic_id": topic_id}, False) for topic_id in ("recreated", "")),
    ],
)
def test_only_the_position_of_this_topic_says_that_a_record_is_read(row: dict[str, Any], is_read: bool) -> None:
    """A higher offset may belong to a deleted topic or to another cluster."""
    sent = Sent("here", {"t": "mine"})
    sent.add([place(6), place(7)])
    said = {"topic": "t", "partition": 0, "next_offset": 8, "topic_id": "mine", "cluster_id": "here"} | row
    assert sent.is_read([SimpleNamespace(**said)]) is is_read


async def test_a_dead_letter_counts_whatever_its_place_in_a_batch(engine: AsyncEngine) -> None:
    """aiokafka reports the timestamp of a batch's first record for each. A letter of a deleted topic is older.

    A letter whose record was read again and has applied does not count.
    """
    letter = {"topic": "t", "partition": 0, "reason": "invalid", "detail": "", "value": b"{}", "headers": []}
    sent = Sent()
    sent.add([place(6), SimpleNamespace(topic="t", partition=0, offset=7, timestamp=place(6).timestamp), place(8)])
    async with engine.begin() as conn:
        for offset, timestamp, resolution in ((6, 500, None), (7, 1007, None), (8, 1008, "replayed")):
            at = {"offset": offset, "record_timestamp": timestamp, "resolution": resolution}
            await conn.execute(insert(dead_letters).values(letter | at))
        assert await letters_of(conn, sent) == {"invalid": 1}


def test_records_of_other_publishers_in_between_are_skipped() -> None:
    offsets = OffsetRanges()
    for offset in (3, 4, 7):
        offsets.add(offset, 1000 + offset)
    assert (offsets.ranges, offsets.earliest) == ([(3, 4), (7, 7)], 1003)
    assert [offset for offset in range(9) if offsets.has(offset)] == [3, 4, 7]
