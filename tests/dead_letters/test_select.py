"""The selection of letters, their discard, and which of them would apply now."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from service.dead_letters import count_by_reason, read
from service.dead_letters.select import Selection, count_selection
from service.dead_letters.verdict import ReplayVerdict, applicable, judge
from service.dead_letters.write import discard
from tests.support.applier import one
from tests.support.letters import ALL, NOBODY, Setup, changed
from tests.support.tables import licenses

LATE = datetime(2999, 1, 1, tzinfo=UTC)


async def selected(setup: Setup, **narrowed: Any) -> list[int]:
    async with setup.engine.connect() as conn:
        return [line.id for line in (await read.read_page(conn, Selection(**narrowed))).letters]


async def throw_away(setup: Setup, selection: Selection = ALL) -> list[int]:
    return [letter for batch in [ids async for ids in discard(setup.engine, selection, "7")] for letter in batch]


async def verdicts(setup: Setup) -> list[ReplayVerdict]:
    async with setup.engine.connect() as conn:
        letters = await read.read_whole(conn, [], 100)
        return (await judge(conn, letters))[::-1]


async def test_a_selection_fits_every_condition(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.letters_of(1, to_level=9)
    assert await selected(setup) == [3, 2, 1]
    assert await selected(setup, reason="unknown_user") == [2, 1]
    assert await selected(setup, reason="unknown_user", ids=(1, 3, 99)) == [1]
    assert await selected(setup, topic="license.advanced") == []
    assert await selected(setup, since=LATE) == []
    assert await selected(setup, until=LATE) == [3, 2, 1]
    await setup.send(Selection(ids=(2,)))
    assert [await selected(setup, state=state) for state in ("replaying", "open", "resolved")] == [[2], [3, 2, 1], []]
    await throw_away(setup, Selection(ids=(1,)))
    assert [await selected(setup, state=state) for state in ("resolved", "open", "all")] == [[1], [3, 2], [3, 2, 1]]


OF_USER_42 = [
    (b"42", b"\xff"),
    (None, b'{"user_id": 42}'),
    (None, b'{"user_id" :\n42, "broken'),
    (None, b'{"data": {"user_id":42}, "x": "\xff\x00"}'),
]
OF_OTHERS = [
    (b"421", b"\xff"),
    (None, b'{"user_id": 421}'),
    (None, b'{"user_id": 42.5}'),
    (None, b'{"user_id": -42}'),
    (None, b'{"note": "user_id: 42"}'),
    (None, b""),
    (b"", None),
]


async def test_a_user_s_letters_are_found_by_key_or_by_value(setup: Setup) -> None:
    contents = [*OF_USER_42, *OF_OTHERS]
    records = setup.partitions.records([one()] * len(contents))
    await setup.read([replace(of, key=key, value=value) for of, (key, value) in zip(records, contents, strict=True)])
    assert len(await setup.letters()) == len(contents)
    assert await selected(setup, user_id=42) == [4, 3, 2, 1]


async def test_a_user_s_page_reads_a_bounded_number_of_letters(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(read, "WINDOW", 3)
    await setup.letters_of(*[NOBODY, *range(NOBODY + 1, NOBODY + 9), NOBODY])
    found, before = [], None
    for _ in range(9):
        async with setup.engine.connect() as conn:
            page = await read.read_page(conn, Selection(user_id=NOBODY), before, 1)
        found += [line.id for line in page.letters]
        before = page.next
        if before is None:
            break
    assert found == [10, 1]


async def test_a_discarded_letter_is_closed_and_says_by_whom(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1)
    assert await throw_away(setup, Selection(ids=(1,))) == [1]
    assert [row[1:3] for row in await setup.letters()] == [("resolved", "discarded"), ("open", None)]
    assert await setup.rows("SELECT resolved_by FROM levelsync.dead_letters WHERE id = 1") == [("7",)]
    assert await throw_away(setup, Selection(ids=(1,))) == []
    assert await setup.send() == [2]


async def test_a_letter_that_is_being_replayed_is_not_discarded(setup: Setup) -> None:
    await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.send()
    assert await throw_away(setup) == []
    await setup.a_minute_later()
    assert await throw_away(setup) == [1, 2]
    await setup.make_user()
    await setup.come_back()
    assert [row[1:4] for row in await setup.letters()] == [("resolved", "discarded", 1)] * 2
    assert await licenses(setup.engine) == {}


async def test_letters_that_would_apply_now_are_marked(setup: Setup) -> None:
    """Only PostgreSQL knows what it refuses."""
    await setup.run("ALTER TABLE user_licenses ADD CONSTRAINT no_seven CHECK (user_id <> 7)")
    await setup.letters_of(NOBODY, NOBODY + 1)
    await setup.letters_of(1, specialization="WIZARD")
    await setup.letters_of(1, to_level=9)
    await setup.letters_of(7)
    (record,) = setup.partitions.records([one()])
    await setup.read([replace(changed(record, to_level="9"), offset=setup.next_offset())])
    assert [one.would_apply for one in await verdicts(setup)] == [False, False, False, False, None, False]
    await setup.make_user()
    await setup.run(
        "INSERT INTO specializations (id, name, max_levels) VALUES ('WIZARD', 'Wizard', 8)",
        "UPDATE specializations SET max_levels = 9 WHERE id = 'PLAYER'",
    )
    found = await verdicts(setup)
    assert [one.would_apply for one in found] == [True, False, True, True, None, False]
    assert found[1].why == f"unknown_user: there is no user {NOBODY + 1}"
    assert found[5].why.startswith("invalid: to_level")
    async with setup.engine.connect() as conn:
        counted = await applicable(conn, "unknown_user")
    assert (counted.looked_at, counted.would_apply) == (2, 1)


@pytest.mark.parametrize("large", [{"key": b"5" * 20_000}, {"headers": (("odd", b"x" * 20_000),)}])
async def test_a_list_does_not_judge_large_letters(setup: Setup, large: dict[str, Any]) -> None:
    """A list reads a thousand letters at once."""
    (record,) = setup.partitions.records([one(user=NOBODY)])
    await setup.read([replace(record, **large)])
    async with setup.engine.connect() as conn:
        (counted,) = await count_by_reason(conn)
        assert (await applicable(conn, counted.reason)).looked_at == 0


async def test_a_superseded_letter_is_marked(setup: Setup) -> None:
    await setup.letters_of(NOBODY)
    await setup.make_user()
    await setup.run(f"INSERT INTO levelsync.fences VALUES ({NOBODY}, 'PLAYER', '2026-06-01', 1, 'test')")
    (verdict,) = await verdicts(setup)
    assert verdict == ReplayVerdict(would_apply=True, why="it counts as superseded: a later decision overrules it")


async def test_letters_of_a_hundred_megabytes_block_no_list(setup: Setup) -> None:
    """Their text is more than PostgreSQL can search. A new letter above the bound keeps only its beginning."""
    await setup.letters_of(NOBODY)
    await setup.run("""
        INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, value, reason)
        SELECT 'progress.leveled-up', 0, 99, 1,
               convert_to('{"user_id": 7, "', 'UTF8') || decode(repeat('00', 100000000), 'hex'), 'malformed'
    """)
    assert await selected(setup, user_id=NOBODY) == [1]
    assert await selected(setup, user_id=7) == [2]
    assert [verdict.would_apply for verdict in await verdicts(setup)] == [False, False]
    await setup.run("UPDATE levelsync.dead_letters SET reason = 'too_large', value = 'x' WHERE id = 2")
    async with setup.engine.connect() as conn:
        assert (await count_selection(conn, Selection())).unsendable == 1
