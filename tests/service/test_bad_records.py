"""Records that no publisher should send: each becomes one dead letter, or is applied in spite of odd headers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.producer import message_accumulator
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support import applying
from tests.support.applying import TOPICS, rise, running
from tests.support.tables import everything, execute, licenses, progress, read
from tests.support.topics import Record, publish, reset

pytestmark = pytest.mark.real_broker
LEVELED, ADVANCED = TOPICS
NOW = datetime.now(UTC)
Header = tuple[str, bytes | None]
LETTERS = """
    SELECT topic, partition, "offset", record_timestamp, key, value, headers, reason, detail, attempts, resolved_at
      FROM levelsync.dead_letters ORDER BY id
"""


def attributes(**changed: bytes | None) -> list[Header]:
    """Return the headers of a good event. A changed one is named without its `ce_`."""
    given = {"specversion": b"1.0", "type": b"progress.leveled-up.v1", "source": b"/app", "id": b"e1"}
    given["time"] = NOW.isoformat().encode()
    return [(f"ce_{name}", value) for name, value in (given | changed).items()]


def data(user: Any = 1, specialization: Any = "PLAYER", to_level: Any = 2, **more: Any) -> bytes:
    return json.dumps({"user_id": user, "specialization": specialization, "to_level": to_level} | more).encode()


@dataclass(frozen=True)
class Bad:
    """A record that is refused, and the reason."""

    reason: str
    value: bytes | None = field(default_factory=data)
    headers: Sequence[Header] = field(default_factory=attributes)
    topic: str = LEVELED
    key: bytes | None = b"1"


AHEAD = (NOW + timedelta(hours=1)).isoformat().encode()
BAD = [
    Bad("malformed", None),
    Bad("malformed", b""),
    Bad("malformed", b'{"user_id": 1'),
    Bad("malformed", b'{"user_id": 1, "specialization": "\xff\xfe", "to_level": 2}'),
    Bad("malformed", b"[" * 10_000 + b"]" * 10_000),
    Bad("malformed", b"\x00" * 10_000_000),
    Bad("malformed", data(to_level=float("nan"))),
    Bad("invalid", data(user="1")),
    Bad("invalid", data(to_level=4.0)),
    Bad("invalid", data(to_level=True)),
    Bad("invalid", data(to_level=2, from_level=2)),
    Bad("invalid", data(user=2**63)),
    Bad("invalid", b"[]"),
    Bad("invalid", data(specialization="PLAY\0ER")),
    Bad("invalid", data(reason="n\0ul"), attributes(type=b"license.advanced.v1"), ADVANCED),
    Bad("invalid", headers=attributes(id=None)),
    Bad("invalid", headers=attributes(source=b"\xff")),
    Bad("invalid", headers=attributes(specversion=None)),
    Bad("invalid", headers=[*attributes(), ("ce_id", b"e2")]),
    Bad("bad_time", headers=attributes(time=None)),
    Bad("bad_time", headers=attributes(time=b"yesterday")),
    Bad("bad_time", headers=attributes(time=b"1999-12-31T23:59:59Z")),
    Bad("bad_time", headers=attributes(time=AHEAD)),
    Bad("unknown_type", headers=()),
    Bad("unknown_type", headers=attributes(type=None)),
    Bad("unknown_type", headers=attributes(type=b"\xff\x00")),
    Bad("unknown_type", topic=ADVANCED),
    Bad("unknown_specialization", data(specialization="WIZARD")),
    Bad("unknown_user", data(user=2_000_000_000)),
    Bad("level_out_of_range", data(to_level=9)),
    Bad("level_out_of_range", data(specialization="internship", to_level=4)),
    Bad("refused_by_database", data(user=13)),
    Bad("malformed", b"\xff", [("no\0text", b"\0"), ("null", None), ("bytes", b"\xff"), ("", b"")], key=None),
    Bad("malformed", b"x", key=b"\xff\x00" * 50),
]
ODD: list[Header] = [("trace", None), ("trace", b"\xff\xfe"), ("", b""), ("no\0text", b"\0"), ("ce_foreign", None)]
GOOD = [
    (LEVELED, data(user=21), attributes(), b"21"),
    (LEVELED, data(user=22, specialization="pLaYeR", unknown=[1]), [*attributes(), *ODD], b"22"),
    (LEVELED, data(user=23), attributes(), None),
    (LEVELED, data(user=24), [*attributes(), ("content-type", b"application/json; charset=utf-8")], b"\xff\0no key"),
    (ADVANCED, data(user=25, reason="nu\\0l"), attributes(type=b"license.advanced.v1"), b""),
]
REFUSE_THIRTEEN = "ALTER TABLE user_licenses ADD CONSTRAINT not_thirteen CHECK (user_id <> 13)"


@pytest.fixture
def records() -> list[tuple[Record, str]]:
    """Every bad record with its reason, mixed with the good ones, over the partitions."""
    made = [(Record(bad.topic, bad.key, bad.value, bad.headers), bad.reason) for bad in BAD]
    for place, (topic, value, headers, key) in enumerate(GOOD):
        made.insert(place * 7, (Record(topic, key, value, headers), ""))
    time = int(NOW.timestamp() * 1000)
    return [(r._replace(partition=i % 4, timestamp_ms=time + i), reason) for i, (r, reason) in enumerate(made)]


async def test_each_bad_record_is_one_letter_whole_and_once_and_its_neighbours_apply(
    database: AsyncEngine, settings: Settings, records: list[tuple[Record, str]]
) -> None:
    """Law 4: reading every record again creates no second letter and changes no row."""
    await execute(database, REFUSE_THIRTEEN)
    offsets = await publish(settings.kafka_bootstrap_servers, [record for record, _ in records])
    async with running(settings):
        end = await applying.caught_up(settings, database)
    found = await read(database, LETTERS)
    sent = zip(records, offsets, strict=True)
    expected = [(*_as_letter(record, offset), reason) for (record, reason), offset in sent if reason]
    assert sorted(tuple(row[:-3]) for row in found) == sorted(expected, key=lambda row: row[:4])
    assert all(detail and attempts == 1 and resolved is None for *_, detail, attempts, resolved in found)
    assert await licenses(database) == {(user, "PLAYER"): 2 for user in (21, 22, 23, 24)}
    assert await progress(database) == {(25, "PLAYER"): 2}
    before = await everything(database)
    await reset(settings.kafka_bootstrap_servers, settings.kafka_group_id, dict.fromkeys(end, 0))
    async with running(settings):
        await applying.caught_up(settings, database)
    assert await everything(database) == before


def _as_letter(record: Record, offset: int) -> tuple[Any, ...]:
    headers = [_as_json(*header) for header in record.headers]
    return record.topic, record.partition, offset, record.timestamp_ms, record.key, record.value, headers


def _as_json(name: str, value: bytes | None) -> dict[str, Any]:
    """Return a header as the table has it: base64 where PostgreSQL's JSON cannot represent the text."""
    named = {"key": name} if "\0" not in name else {"key_base64": base64.b64encode(name.encode()).decode()}
    try:
        decoded = None if value is None else value.decode()
    except UnicodeDecodeError:
        decoded = "\0"
    if decoded is not None and "\0" in decoded:
        return named | {"base64": base64.b64encode(value or b"").decode()}
    return named | {"value": decoded}


class Latin1(str):
    """A header name that is sent as Latin-1, as librdkafka can."""

    __slots__ = ()

    def encode(self, *_options: str, **_more: str) -> bytes:
        return super().encode("latin-1")


async def publish_as_is(settings: Settings, sent: list[Record], codec: str | None, patch: pytest.MonkeyPatch) -> None:
    """Send one batch with aiokafka's Python writer, which calls `encode` on a name; the compiled one does not."""
    producer = AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap_servers, compression_type=codec)
    await producer.start()
    try:
        with patch.context() as patched:
            patched.setattr(message_accumulator, "DefaultRecordBatchBuilder", _DefaultRecordBatchBuilderPy)
            batch, now = producer.create_batch(), int(time.time() * 1000)
            for one in sent:
                assert batch.append(key=one.key, value=one.value, timestamp=now, headers=list(one.headers))
            batch.close()
            await (await producer.send_batch(batch, LEVELED, partition=0))
    finally:
        await producer.stop()


def rise_with(user: int, *headers: Header, value: bytes | None = None) -> Record:
    record = rise(user, 3, 0)
    return record._replace(value=value or record.value, headers=[*record.headers, *headers])


@pytest.mark.parametrize("codec", [None, "gzip"])
async def test_a_header_whose_name_is_not_utf_8_is_ignored_like_all_others(
    database: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch, codec: str | None
) -> None:
    """Law 4: the records apply, and a dead letter stores the name's own bytes."""
    odd = (Latin1("größe"), b"\xff")
    sent = [rise_with(1), rise_with(2, odd), rise_with(3), rise_with(4, odd, value=b"{"), rise_with(5)]
    await publish_as_is(settings, sent, codec, monkeypatch)
    async with running(settings):
        await applying.caught_up(settings, database)
    assert await licenses(database) == {(user, "PLAYER"): 3 for user in (1, 2, 3, 5)}
    ((headers,),) = await read(database, "SELECT headers FROM levelsync.dead_letters")
    encoded = [base64.b64encode(part).decode() for part in ("größe".encode("latin-1"), b"\xff")]
    assert headers[-1] == {"key_base64": encoded[0], "base64": encoded[1]}
