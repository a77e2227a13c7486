"""`levelsync publish`: one event, and a file of them."""

import asyncio
import io
import json
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, ConsumerRecord
from aiokafka.errors import KafkaTimeoutError, NotLeaderForPartitionError

from events import LicenseAdvanced, ProgressLeveledUp, read
from service.cli.publish import read_pieces
from service.local import EmbeddedBroker
from service.settings import Settings
from service.stream.lag import EndOffsets
from service.stream.producer import MAX_REQUEST_BYTES, NotDelivered, deliver
from tests.support.process import environment, levelsync

OPTIONS = ("--user", "42", "--specialization", "PLAYER", "--to-level", "5")


def line(user: int) -> str:
    return ProgressLeveledUp(user_id=user, specialization="PLAYER", to_level=2).to_structured()


async def records(settings: Settings) -> list[ConsumerRecord]:
    """Return every record in Kafka."""
    async with EndOffsets(settings) as kafka:
        ends = await kafka.read()
    consumer = AIOKafkaConsumer(bootstrap_servers=settings.kafka_bootstrap_servers, auto_offset_reset="earliest")
    await consumer.start()
    try:
        consumer.assign([partition for partition, end in ends.items() if end])
        found: list[ConsumerRecord] = []
        while len(found) < sum(ends.values()):
            found += [r for part in (await consumer.getmany(timeout_ms=1000)).values() for r in part]
        return found
    finally:
        await consumer.stop()


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


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--user", "0", "--specialization", "PLAYER", "--to-level", "5"), "--user"),
        ((*OPTIONS, "--from-level", "5"), "to_level must be above from_level"),
        ((*OPTIONS, "--time", "1999-12-31"), "2000"),
        ((*OPTIONS, "--time", "yesterday"), "--time"),
    ],
)
def test_an_event_that_would_be_a_dead_letter_is_not_published(options: tuple[str, ...], named: str) -> None:
    run = levelsync("publish", "leveled-up", *options, env={"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert run.returncode == 2
    assert named in run.stderr


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
    assert (run.returncode, run.stdout) == (2, "")
    assert "line 4:" in run.stderr
    assert "2 events before it are sent" in run.stderr
    assert sorted(record.key for record in await records(settings)) == [b"1", b"2"]


def test_missing_topics_are_named_where_they_may_not_be_created_and_created_elsewhere() -> None:
    with EmbeddedBroker() as broker:
        settings = {"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": broker.bootstrap_servers}
        for _ in range(2):  # asking creates no topic
            run = levelsync(
                "publish", "leveled-up", *OPTIONS, env=settings | {"LEVELSYNC_KAFKA_CREATE_TOPICS": "false"}
            )
            assert run.returncode == 3
            assert "progress.leveled-up" in run.stderr
            assert "LEVELSYNC_KAFKA_CREATE_TOPICS" in run.stderr
        # The embedded broker has no idempotent producers, and is recognised by its cluster id.
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


def test_a_line_without_an_end_does_not_fill_the_memory() -> None:
    stream = io.BufferedReader(io.BytesIO(b"good\n" + b"x" * (5 * MAX_REQUEST_BYTES)))
    *_, (last,) = read_pieces(stream)
    assert MAX_REQUEST_BYTES < len(last) < 2 * MAX_REQUEST_BYTES
