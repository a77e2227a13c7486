"""A letter that is sent again: closed when it applies, counted when it fails, once, whoever asks and however often."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from aiokafka import ConsumerRecord

from events import ReconcileRequested
from service.dead_letters import write
from service.dead_letters.select import Selection, census
from service.dead_letters.write import discard, replay
from service.reconcile.work import RequestWork
from service.stream.positions import Batch
from tests.support.applier import one
from tests.support.letters import ALL, NOBODY, Scene, changed
from tests.support.model import LEVELED_UP
from tests.support.records import START
from tests.support.tables import licenses


async def test_a_replay_that_applies_closes_its_letter(scene: Scene) -> None:
    """And says who asked for it."""
    await scene.letters_of(NOBODY)
    await scene.make_user()
    assert await scene.send(by="7") == [1]
    assert await scene.letters() == [(1, "open", None, 1, "unknown_user")]
    await scene.come_back()
    assert await scene.letters() == [(1, "resolved", "replayed", 1, "unknown_user")]
    assert await scene.rows("SELECT resolved_by, replayed_at FROM levelsync.dead_letters") == [("7", None)]
    assert await licenses(scene.engine) == {(NOBODY, "PLAYER"): 3}


async def test_a_replay_that_fails_raises_the_count_and_makes_no_second_letter(scene: Scene) -> None:
    """Its newest reason is shown, and it can be sent again at once."""
    await scene.letters_of(NOBODY, specialization="WIZARD")
    await scene.run("INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 2)")
    for attempts in (2, 3):
        assert await scene.send() == [1]
        await scene.come_back()
        assert await scene.letters() == [(1, "open", None, attempts, "level_out_of_range")]


async def test_records_that_are_read_again_count_no_second_time(scene: Scene) -> None:
    """A group reset after replays: neither the failed one nor the applied one changes anything."""
    records = await scene.letters_of(NOBODY, NOBODY + 1)
    await scene.make_user()
    await scene.send()
    records += await scene.come_back()
    before = await scene.rows("SELECT * FROM levelsync.dead_letters ORDER BY id")
    assert [row[1:4] for row in await scene.letters()] == [("resolved", "replayed", 1), ("open", None, 2)]
    await scene.read(records)
    assert await scene.rows("SELECT * FROM levelsync.dead_letters ORDER BY id") == before


async def test_a_letter_on_its_way_is_sent_once(scene: Scene) -> None:
    """For a minute; then it may be lost, and is sent again."""
    await scene.letters_of(NOBODY)
    assert [await scene.send(), await scene.send()] == [[1], []]
    async with scene.engine.connect() as conn:
        found = await census(conn, ALL)
    assert (found.open, found.on_its_way) == (1, 1)
    await scene.a_minute_later()
    assert await scene.send() == [1]


async def test_two_people_at_once_send_each_letter_once(scene: Scene) -> None:
    """They wait for each other's locks and pass by what the other has sent."""
    await scene.letters_of(*range(NOBODY, NOBODY + 50))
    sent = await asyncio.gather(*(scene.send() for _ in range(4)))
    assert sorted(letter for ids in sent for letter in ids) == list(range(1, 51))
    assert len(await scene.on_their_way()) == 50


async def test_copies_of_a_replay_do_no_harm(scene: Scene) -> None:
    """A relay that dies after Kafka's confirmation sends once more: closed stays closed, whatever the copy does."""
    await scene.letters_of(NOBODY)
    await scene.make_user()
    await scene.send()
    (record,) = await scene.on_their_way()
    await scene.read([record])
    await scene.run("TRUNCATE user_licenses CASCADE", f"DELETE FROM users WHERE id = {NOBODY}")
    await scene.read([replace(record, offset=scene.next_offset(), timestamp=record.timestamp + 1000)])
    assert await scene.letters() == [(1, "resolved", "replayed", 1, "unknown_user")]


async def test_copies_in_one_batch_of_which_one_fails_close_the_letter(scene: Scene) -> None:
    """What has applied has applied."""
    await scene.run("ALTER TABLE user_licenses ADD CONSTRAINT no_three CHECK (current_level <> 3)")
    await scene.letters_of(1)
    await scene.send()
    (record,) = await scene.on_their_way()
    await scene.run("ALTER TABLE user_licenses DROP CONSTRAINT no_three")
    await scene.run("INSERT INTO levelsync.fences VALUES (1, 'PLAYER', '2025-01-01', 1, 'test')")
    await scene.read([record, replace(record, offset=scene.next_offset())])
    assert await scene.letters() == [(1, "resolved", "replayed", 1, "refused_by_database")]


async def test_a_name_that_is_forged_closes_nothing(scene: Scene) -> None:
    """Neither by a good record, nor by a bad one, which becomes a letter of its own."""
    await scene.letters_of(NOBODY)
    await scene.send()
    (record,) = await scene.on_their_way()
    good = replace(changed(record, user_id=1), offset=scene.next_offset())
    bad = replace(changed(record, to_level=99), offset=scene.next_offset())
    other_key = replace(record, key=b"1", offset=scene.next_offset())
    other_id = [(name, b"another" if name == "ce_id" else value) for name, value in record.headers]
    other_event = replace(record, headers=tuple(other_id), offset=scene.next_offset())
    await scene.read([good, bad, other_key, other_event])
    assert [row[1:4] for row in await scene.letters()] == [("open", None, 1)] * 4
    assert [row[4] for row in await scene.letters()] == ["unknown_user", "level_out_of_range", *["unknown_user"] * 2]


async def test_a_letter_of_no_one_s_is_a_letter_of_its_own(scene: Scene) -> None:
    """A name that is not a number, too large, or of a letter that was removed meanwhile loses no record."""
    (record,) = await scene.letters_of(NOBODY)
    for name in (b"", b"\xff", b"9" * 18, b"9" * 30, b"-1", b"1000", None):
        headers = (*record.headers, ("levelsync-dead-letter", name))
        await scene.read([replace(record, headers=headers, offset=scene.next_offset())])
    assert len(await scene.letters()) == 8


async def test_a_decision_stands_against_a_replay(scene: Scene) -> None:
    """Law 2: the first record's time counts; the letter closes without an effect."""
    await scene.letters_of(1, to_level=3, specialization="WIZARD")
    await scene.run(
        "INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)",
        "INSERT INTO levelsync.fences VALUES (1, 'WIZARD', '2026-01-01T00:30:00Z', 1, 'test')",
    )
    await scene.send()
    await scene.come_back()
    assert await scene.letters() == [(1, "resolved", "replayed", 1, "unknown_specialization")]
    assert await licenses(scene.engine) == {}


async def test_replays_of_refused_records_are_no_fault_of_the_installation(scene: Scene) -> None:
    """Law 4: thirty users' letters that are refused once more block nothing."""
    await scene.run("ALTER TABLE user_licenses ADD CONSTRAINT odd CHECK (user_id % 4 > 0)")
    await scene.letters_of(*range(1, 121))
    assert len(await scene.letters()) == 30
    await scene.send()
    await scene.come_back()
    assert {row[1:4] for row in await scene.letters()} == {("open", None, 2)}


async def test_a_discard_stands_against_a_replay_that_comes_late(scene: Scene) -> None:
    """Kafka was away for longer than a minute, and somebody decided against the letter: nothing is written."""
    await scene.letters_of(NOBODY, NOBODY + 1)
    await scene.send()
    await scene.a_minute_later()
    assert [ids async for ids in discard(scene.engine, Selection(ids=(1,)), "me")] == [[1]]
    await scene.make_user()
    await scene.make_user(NOBODY + 1)
    await scene.come_back()
    assert [row[1:3] for row in await scene.letters()] == [("resolved", "discarded"), ("resolved", "replayed")]
    assert await licenses(scene.engine) == {(NOBODY + 1, "PLAYER"): 3}


async def test_a_discard_stands_against_a_request_that_comes_late(scene: Scene) -> None:
    """The same for a run that nobody wants any more."""
    work, record = RequestWork(scene.engine), requested(specialization="WIZARD", dry_run=False)

    async def read(records: list[ConsumerRecord]) -> None:
        await work.apply(Batch(records, {}, {}))

    await read([record, replace(record, offset=1)])
    await scene.send()
    await scene.a_minute_later()
    assert [ids async for ids in discard(scene.engine, ALL, "me")] == [[1, 2]]
    await scene.run("INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)")
    await read(await scene.on_their_way())
    assert await scene.rows("SELECT id FROM levelsync.reconcile_runs") == []
    await read([replace(record, offset=2)])
    assert len(await scene.rows("SELECT id FROM levelsync.reconcile_runs")) == 1


def requested(**data: Any) -> ConsumerRecord:
    """A request as Kafka delivers it."""
    sent = ReconcileRequested(**data).to_kafka()
    at = int(START.timestamp() * 1000) + 10**12
    return ConsumerRecord(sent.topic, 0, 0, at, 0, sent.key, sent.value, None, 0, 0, tuple(sent.headers))


async def test_a_selection_is_sent_in_bounded_transactions(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which the letters came."""
    monkeypatch.setattr(write, "BATCH_LETTERS", 4)
    await scene.letters_of(*range(NOBODY, NOBODY + 10))
    assert await scene.send(Selection(reason="unknown_user")) == list(range(1, 11))
    assert [int(record.key) for record in await scene.on_their_way()] == list(range(NOBODY, NOBODY + 10))
    assert scene.partitions.ends[LEVELED_UP] == 20


@pytest.mark.parametrize("large", [{"key": b"x" * 2000}, {"headers": (("name", b"x" * 2000),)}, {"value": b"x" * 2000}])
async def test_a_transaction_is_bounded_by_whole_letters(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, large: dict[str, Any]
) -> None:
    """A thousand letters of a megabyte of headers are no work for one transaction."""
    monkeypatch.setattr(write, "BATCH_BYTES", 4001)
    records = scene.partitions.records(
        [one(user=NOBODY, minutes=number, specialization="WIZARD") for number in range(5)]
    )
    await scene.read([replace(record, **large) for record in records])
    sent = [ids async for ids in replay(scene.engine, ALL, "somebody")]
    assert [len(ids) for ids in sent] in ([2, 2, 1], [3, 2])
