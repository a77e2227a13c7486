"""A replay is the original record byte for byte, with two more headers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from service.dead_letters.select import census
from tests.support.applier import one
from tests.support.letters import ALL, NOBODY, ODD, Setup, changed
from tests.support.model import LEVELED_UP
from tests.support.tables import licenses


async def test_headers_of_any_bytes_go_again_as_they_came(setup: Setup) -> None:
    """Null, empty, binary and repeated headers. Ours come last."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    await setup.read([replace(record, headers=(*record.headers, *ODD))])
    await setup.send()
    (again,) = await setup.on_their_way()
    first = str(record.timestamp).encode()
    added = [("levelsync-first-timestamp", first), ("levelsync-dead-letter", b"1")]
    assert list(again.headers) == [*record.headers, *ODD, *added]
    assert (again.topic, again.key, again.value) == (record.topic, record.key, record.value)


async def test_a_name_that_is_no_text_is_left_out(setup: Setup) -> None:
    """No producer can write such a name. The letter keeps it."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    name = b"\xff".decode(errors="surrogateescape")
    await setup.read([replace(record, headers=((name, b"x"), *record.headers))])
    await setup.make_user()
    await setup.send()
    (again,) = await setup.come_back()
    assert list(again.headers[:-2]) == list(record.headers)
    assert [row[1] for row in await setup.letters()] == ["resolved"]


@pytest.mark.parametrize("part", ["key", "value"])
@pytest.mark.parametrize("content", [None, b"", b"\xff\x00", b"\x00" * 100_000], ids=["none", "empty", "two", "many"])
async def test_a_key_and_a_value_of_any_bytes_are_the_letter_s_own(
    setup: Setup, part: str, content: bytes | None
) -> None:
    """The letter fails again and stays one. The key chooses the partition."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    bad: dict[str, Any] = {part: content}
    await setup.read([replace(record, **bad)])
    await setup.send()
    (again,) = await setup.come_back()
    assert getattr(again, part) == content
    assert await setup.letters() == [(1, "open", None, 2, "malformed" if part == "value" else "unknown_user")]


async def test_headers_of_an_earlier_replay_are_replaced_and_its_older_time_stays(setup: Setup) -> None:
    """The letter comes from a replay whose own letter was removed. Law 2 counts the time of the first record."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    older = str(record.timestamp - 5000).encode()
    names = (("levelsync-dead-letter", b"77"), ("levelsync-first-timestamp", older))
    await setup.read([replace(record, headers=(*names, *record.headers))])
    await setup.send()
    (again,) = await setup.on_their_way()
    added = [("levelsync-first-timestamp", older), ("levelsync-dead-letter", b"1")]
    assert list(again.headers) == [*record.headers, *added]


@pytest.mark.parametrize("time", [b"later", b"", None, b"0", b"000", b"9" * 15, b"9" * 16])
async def test_a_first_time_that_is_none_or_later_counts_as_the_record_s(setup: Setup, time: bytes | None) -> None:
    """The appliers read it in the same way."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    await setup.read([replace(record, headers=(("levelsync-first-timestamp", time), *record.headers))])
    await setup.send()
    (again,) = await setup.on_their_way()
    assert again.headers[-2] == ("levelsync-first-timestamp", str(record.timestamp).encode())


@pytest.mark.parametrize("time", [b"0", b"000"])
async def test_a_first_time_of_zero_opens_no_fence(setup: Setup, time: bytes) -> None:
    """Law 2: the record's own timestamp counts, whatever its publisher writes as the event's time."""
    await setup.run("INSERT INTO levelsync.fences VALUES (1, 'PLAYER', '2100-01-01', 1, 'test')")
    (record,) = setup.partitions.records([one(user=1)])
    said = [(name, b"2150-01-01T00:00:00Z" if name == "ce_time" else value) for name, value in record.headers]
    await setup.read([replace(record, headers=(("levelsync-first-timestamp", time), *said))])
    assert await licenses(setup.engine) == {}
    assert [letter[4] for letter in await setup.letters()] == ["bad_time"]


async def test_what_kafka_does_not_take_is_counted_and_not_sent(setup: Setup) -> None:
    """A record that is too large, or that has neither key nor value."""
    (good,) = setup.partitions.records([one(user=NOBODY)])
    large = replace(changed(good, reason="x" * 1_000_000), offset=setup.next_offset())
    empty = replace(good, key=None, value=None, offset=setup.next_offset())
    await setup.read([good, large, empty])
    async with setup.engine.connect() as conn:
        found = await census(conn, ALL)
    assert (found.open, found.unsendable) == (3, 2)
    assert await setup.send() == [1]
    assert setup.partitions.ends[LEVELED_UP] == 3
