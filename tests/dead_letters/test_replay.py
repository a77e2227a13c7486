"""Replays: a letter is sent byte for byte, closed when its record applies, and counted when it fails."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from events import ReconcileRequested
from service.dead_letters import write
from service.dead_letters.select import Selection, count_selection
from service.dead_letters.write import discard, replay
from service.reconcile.work import RequestWork
from service.stream.positions import Batch
from tests.support.applier import one
from tests.support.letters import ALL, NOBODY, ODD, Setup, changed
from tests.support.model import LEVELED_UP
from tests.support.records import START
from tests.support.tables import everything, licenses


async def test_a_replay_that_applies_closes_its_letter(setup: Setup) -> None:
    await setup.letters_of(NOBODY)
    await setup.make_user()
    assert await setup.send(by="7") == [1]
    assert await setup.letters() == [(1, "open", None, 1, "unknown_user")]
    await setup.come_back()
    assert await setup.letters() == [(1, "resolved", "replayed", 1, "unknown_user")]
    assert await setup.rows("SELECT resolved_by, replayed_at FROM levelsync.dead_letters") == [("7", None)]
    assert await licenses(setup.engine) == {(NOBODY, "PLAYER"): 3}


async def test_a_replay_that_fails_raises_the_count_and_makes_no_second_letter(setup: Setup) -> None:
    await setup.letters_of(NOBODY, specialization="WIZARD")
    await setup.run("INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 2)")
    for attempts in (2, 3):
        assert await setup.send() == [1]
        await setup.come_back()
        assert await setup.letters() == [(1, "open", None, attempts, "level_out_of_range")]


async def test_records_that_are_read_again_are_counted_once(setup: Setup) -> None:
    records = await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.make_user()
    await setup.send()
    records += await setup.come_back()
    before = await setup.rows("SELECT * FROM levelsync.dead_letters ORDER BY id")
    assert [row[1:4] for row in await setup.letters()] == [("resolved", "replayed", 1), ("open", None, 2)]
    await setup.read(records)
    assert await setup.rows("SELECT * FROM levelsync.dead_letters ORDER BY id") == before


async def test_a_letter_that_is_being_replayed_is_sent_once(setup: Setup) -> None:
    await setup.letters_of(NOBODY)
    assert [await setup.send(), await setup.send()] == [[1], []]
    async with setup.engine.connect() as conn:
        found = await count_selection(conn, ALL)
    assert (found.open, found.on_its_way) == (1, 1)
    await setup.a_minute_later()
    assert await setup.send() == [1]


async def test_two_people_at_once_send_each_letter_once(setup: Setup) -> None:
    await setup.letters_of(*range(NOBODY, NOBODY + 50))
    sent = await asyncio.gather(*(setup.send() for _ in range(4)))
    assert sorted(letter for ids in sent for letter in ids) == list(range(1, 51))
    assert len(await setup.on_their_way()) == 50


async def test_copies_of_a_replay_change_nothing(setup: Setup) -> None:
    """A relay that dies after Kafka's confirmation sends once more. The letter stays closed."""
    await setup.letters_of(NOBODY)
    await setup.make_user()
    await setup.send()
    (record,) = await setup.on_their_way()
    await setup.read([record])
    await setup.run("TRUNCATE user_licenses CASCADE", f"DELETE FROM users WHERE id = {NOBODY}")
    await setup.read([replace(record, offset=setup.next_offset(), timestamp=record.timestamp + 1000)])
    assert await setup.letters() == [(1, "resolved", "replayed", 1, "unknown_user")]


async def test_copies_in_one_batch_of_which_one_fails_close_the_letter(setup: Setup) -> None:
    await setup.run("ALTER TABLE user_licenses ADD CONSTRAINT no_three CHECK (current_level <> 3)")
    await setup.letters_of(1)
    await setup.send()
    (record,) = await setup.on_their_way()
    await setup.run("ALTER TABLE user_licenses DROP CONSTRAINT no_three")
    await setup.run("INSERT INTO levelsync.fences VALUES (1, 'PLAYER', '2025-01-01', 1, 'test')")
    await setup.read([record, replace(record, offset=setup.next_offset())])
    assert await setup.letters() == [(1, "resolved", "replayed", 1, "refused_by_database")]


async def test_a_forged_letter_id_closes_nothing(setup: Setup) -> None:
    """A forged bad record becomes its own letter."""
    await setup.letters_of(NOBODY)
    await setup.send()
    (record,) = await setup.on_their_way()
    good = replace(changed(record, user_id=1), offset=setup.next_offset())
    bad = replace(changed(record, to_level=99), offset=setup.next_offset())
    other_key = replace(record, key=b"1", offset=setup.next_offset())
    other_id = [(name, b"another" if name == "ce_id" else value) for name, value in record.headers]
    other_event = replace(record, headers=tuple(other_id), offset=setup.next_offset())
    await setup.read([good, bad, other_key, other_event])
    assert [row[1:4] for row in await setup.letters()] == [("open", None, 1)] * 4
    assert [row[4] for row in await setup.letters()] == ["unknown_user", "level_out_of_range", *["unknown_user"] * 2]


async def test_an_unknown_letter_id_creates_a_new_letter(setup: Setup) -> None:
    (record,) = await setup.letters_of(NOBODY)
    for name in (b"", b"\xff", b"9" * 18, b"9" * 30, b"-1", b"1000", None):
        headers = (*record.headers, ("levelsync-dead-letter", name))
        await setup.read([replace(record, headers=headers, offset=setup.next_offset())])
    assert len(await setup.letters()) == 8


async def test_a_replay_does_not_override_a_decision(setup: Setup) -> None:
    """Law 2 counts the time of the first record. The letter closes without an effect."""
    await setup.letters_of(1, to_level=3, specialization="WIZARD")
    await setup.run(
        "INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)",
        "INSERT INTO levelsync.fences VALUES (1, 'WIZARD', '2026-01-01T00:30:00Z', 1, 'test')",
    )
    await setup.send()
    await setup.come_back()
    assert await setup.letters() == [(1, "resolved", "replayed", 1, "unknown_specialization")]
    assert await licenses(setup.engine) == {}


async def test_refused_records_that_are_read_again_or_replayed_are_not_an_installation_fault(setup: Setup) -> None:
    """Laws 3 and 4: a refusal that already has a dead letter does not count towards the twenty users."""
    await setup.run("ALTER TABLE user_licenses ADD CONSTRAINT odd CHECK (user_id % 4 > 0)")
    records = await setup.letters_of(*range(1, 121))
    before = await everything(setup.engine)
    assert len(before["levelsync.dead_letters"]) == 30
    again = await setup.partitions.apply(LEVELED_UP, records)
    assert [letter.index for letter in again.letters] == list(range(3, 120, 4))
    assert await everything(setup.engine) == before
    await setup.send()
    await setup.come_back()
    assert {row[1:4] for row in await setup.letters()} == {("open", None, 2)}


async def test_a_late_replay_does_not_override_a_discard(setup: Setup) -> None:
    """Kafka was away for longer than a minute, and the letter was discarded."""
    await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.send()
    await setup.a_minute_later()
    assert [ids async for ids in discard(setup.engine, Selection(ids=(1,)), "me")] == [[1]]
    await setup.make_user()
    await setup.make_user(NOBODY + 1)
    await setup.come_back()
    assert [row[1:3] for row in await setup.letters()] == [("resolved", "discarded"), ("resolved", "replayed")]
    assert await licenses(setup.engine) == {(NOBODY + 1, "PLAYER"): 3}


async def test_a_late_request_does_not_override_a_discard(setup: Setup) -> None:
    work, record = RequestWork(setup.engine), requested(specialization="WIZARD", dry_run=False)

    async def read(records: list[ConsumerRecord]) -> None:
        await work.apply(Batch(records, {}, {}))

    await read([record, replace(record, offset=1)])
    await setup.send()
    await setup.a_minute_later()
    assert [ids async for ids in discard(setup.engine, ALL, "me")] == [[1, 2]]
    await setup.run("INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)")
    await read(await setup.on_their_way())
    assert await setup.rows("SELECT id FROM levelsync.reconcile_runs") == []
    await read([replace(record, offset=2)])
    assert len(await setup.rows("SELECT id FROM levelsync.reconcile_runs")) == 1


def requested(**data: Any) -> ConsumerRecord:
    """Return a request as Kafka delivers it."""
    sent = ReconcileRequested(**data).to_kafka()
    at = int(START.timestamp() * 1000) + 10**12
    return ConsumerRecord(sent.topic, 0, 0, at, 0, sent.key, sent.value, None, 0, 0, tuple(sent.headers))


async def test_a_selection_is_sent_in_bounded_transactions(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(write, "BATCH_LETTERS", 4)
    await setup.letters_of(*range(NOBODY, NOBODY + 10))
    assert await setup.send(Selection(reason="unknown_user")) == list(range(1, 11))
    assert [int(record.key) for record in await setup.on_their_way()] == list(range(NOBODY, NOBODY + 10))
    assert setup.partitions.ends[LEVELED_UP] == 20


async def test_a_transaction_is_bounded_by_whole_letters(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand letters with a megabyte of headers are too much for one transaction."""
    monkeypatch.setattr(write, "BATCH_BYTES", 4001)
    large: list[dict[str, Any]] = [{"key": b"x" * 2000}, {"headers": (("name", b"x" * 2000),)}, {"value": b"x" * 2000}]
    for part in large:
        records = setup.partitions.records([one(user=NOBODY, specialization="WIZARD")] * 5)
        await setup.read([replace(record, **part) for record in records])
        sent = [ids async for ids in replay(setup.engine, ALL, "somebody")]
        assert [len(ids) for ids in sent] in ([2, 2, 1], [3, 2]), part


async def test_headers_of_any_bytes_are_replayed_unchanged(setup: Setup) -> None:
    """Null, empty, binary and repeated headers. Ours come last."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    await setup.read([replace(record, headers=(*record.headers, *ODD))])
    await setup.send()
    (again,) = await setup.on_their_way()
    first = str(record.timestamp).encode()
    added = [("levelsync-first-timestamp", first), ("levelsync-dead-letter", b"1")]
    assert list(again.headers) == [*record.headers, *ODD, *added]
    assert (again.topic, again.key, again.value) == (record.topic, record.key, record.value)


async def test_a_header_name_that_is_not_text_is_omitted(setup: Setup) -> None:
    """No producer can write such a name. The letter keeps it."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    name = b"\xff".decode(errors="surrogateescape")
    await setup.read([replace(record, headers=((name, b"x"), *record.headers))])
    await setup.make_user()
    await setup.send()
    (again,) = await setup.come_back()
    assert list(again.headers[:-2]) == list(record.headers)
    assert [row[1] for row in await setup.letters()] == ["resolved"]


async def test_a_key_and_a_value_of_any_bytes_are_the_letter_s_own(setup: Setup) -> None:
    """Each letter fails again and stays one. The key chooses the partition."""
    contents = [None, b"", b"\xff\x00", b"\x00" * 100_000]
    records = setup.partitions.records([one(user=NOBODY)] * 2 * len(contents))
    odd = [replace(record, key=content) for record, content in zip(records[:4], contents, strict=True)]
    odd += [replace(record, value=content) for record, content in zip(records[4:], contents, strict=True)]
    await setup.read(odd)
    await setup.send()
    again = await setup.come_back()
    assert [(record.key, record.value) for record in again] == [(record.key, record.value) for record in odd]
    reasons = [*["unknown_user"] * 4, *["malformed"] * 4]
    assert await setup.letters() == [(id_, "open", None, 2, reason) for id_, reason in enumerate(reasons, start=1)]


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


async def test_an_unusable_first_time_is_replaced_by_the_record_s(setup: Setup) -> None:
    """The appliers read it in the same way."""
    times = [b"later", b"", None, b"0", b"000", b"9" * 15, b"9" * 16]
    records = setup.partitions.records([one(user=NOBODY, minutes=number) for number in range(len(times))])
    await setup.read([_with_first_time(record, time) for record, time in zip(records, times, strict=True)])
    await setup.send()
    replaced = [("levelsync-first-timestamp", str(record.timestamp).encode()) for record in records]
    assert [again.headers[-2] for again in await setup.on_their_way()] == replaced


async def test_a_first_time_of_zero_opens_no_fence(setup: Setup) -> None:
    """Law 2: the record's own timestamp counts, whatever its publisher writes as the event's time."""
    await setup.run("INSERT INTO levelsync.fences VALUES (1, 'PLAYER', '2100-01-01', 1, 'test')")
    (record,) = setup.partitions.records([one(user=1)])
    said = [(name, b"2150-01-01T00:00:00Z" if name == "ce_time" else value) for name, value in record.headers]
    future = replace(record, headers=tuple(said))
    await setup.read([_with_first_time(future, b"0"), _with_first_time(replace(future, offset=1), b"000")])
    assert await licenses(setup.engine) == {}
    assert [letter[4] for letter in await setup.letters()] == ["bad_time"] * 2


def _with_first_time(record: ConsumerRecord, time: bytes | None) -> ConsumerRecord:
    return replace(record, headers=(("levelsync-first-timestamp", time), *record.headers))


async def test_records_that_kafka_refuses_are_counted_and_not_sent(setup: Setup) -> None:
    """A record that is too large, or that has neither key nor value."""
    (good,) = setup.partitions.records([one(user=NOBODY)])
    large = replace(changed(good, reason="x" * 1_000_000), offset=setup.next_offset())
    empty = replace(good, key=None, value=None, offset=setup.next_offset())
    await setup.read([good, large, empty])
    async with setup.engine.connect() as conn:
        found = await count_selection(conn, ALL)
    assert (found.open, found.unsendable) == (3, 2)
    assert await setup.send() == [1]
    assert setup.partitions.ends[LEVELED_UP] == 3
