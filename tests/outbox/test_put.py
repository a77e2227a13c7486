"""Events are put into the outbox in a transaction, and held back where a topic refuses them."""

from typing import Any

import pytest
from aiokafka.errors import MessageSizeTooLargeError, NotEnoughReplicasError, TopicAuthorizationFailedError
from sqlalchemy import Text, cast, func, insert, select
from sqlalchemy.ext.asyncio import AsyncEngine

from events import read
from service.outbox.put import OutboxRow, put
from service.outbox.relay import HeldBack, read_batch
from service.store.tables import outbox
from tests.support.outbox import event, pending, put_numbered

whole = func.octet_length(outbox.c.key) + func.octet_length(outbox.c.value)
whole += func.octet_length(cast(outbox.c.headers, Text))


async def test_events_are_read_as_they_were_put(engine: AsyncEngine) -> None:
    events = [event(user, number) for number in range(1, 4) for user in (7, 5)]
    async with engine.begin() as conn:
        await put(conn, events)
        rows = await read_batch(conn, HeldBack())
    received = [read(row.topic, row.value, row.headers, -1) for row in rows]
    assert [one.event for one in received] == events
    assert [one.id for one in received] == [one.id for one in events]
    assert [row.key for row in rows] == [one.key for one in events]


async def test_what_is_rolled_back_was_never_put(engine: AsyncEngine) -> None:
    """Putting no event is allowed."""
    async with engine.connect() as conn:
        await put(conn, [event(1, 1)])
        await conn.rollback()
        await put(conn, [])
        await conn.commit()
    assert await pending(engine) == 0


async def test_a_batch_is_bounded_in_bytes_but_not_empty(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with the event that reaches the bound, even if that is the first."""
    await put_numbered(engine, [(1, number) for number in range(1, 6)])
    async with engine.connect() as conn:
        size = (await conn.execute(select(whole).limit(1))).scalar_one()
        for most, expected in ((1, 1), (size, 1), (size + 1, 2), (size * 5, 5)):
            monkeypatch.setattr("service.outbox.relay.BATCH_BYTES", most)
            assert len(await read_batch(conn, HeldBack())) == expected


@pytest.mark.parametrize("large", ["key", "value", "headers"])
async def test_keys_and_headers_count_too(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch, large: str) -> None:
    """A replayed dead letter may have a megabyte of headers, and 500 of them were read at once."""
    row: dict[str, Any] = {"topic": "a", "key": b"1", "value": b"x", "headers": []}
    row[large] = [["name", "x" * 2000]] if large == "headers" else b"x" * 2000
    async with engine.begin() as conn:
        await conn.execute(insert(outbox), [row] * 5)
    monkeypatch.setattr("service.outbox.relay.BATCH_BYTES", 4001)
    async with engine.connect() as conn:
        assert len(await read_batch(conn, HeldBack())) == 2


ROWS = [OutboxRow(number, "topic", b"key", b"{}", []) for number in (1, 2, 3)]


def test_a_row_is_held_back_only_when_it_was_refused_alone() -> None:
    """Kafka refuses a whole batch for one record. The rows are then sent one by one until it is found."""
    back = HeldBack()
    back.hold_refused({row: MessageSizeTooLargeError() for row in ROWS})
    assert back.rows == set()
    assert back.one_by_one_upto == 3
    back.hold_refused({ROWS[1]: MessageSizeTooLargeError()})
    assert back.rows == {2}


def test_what_may_pass_holds_nothing_back() -> None:
    back = HeldBack()
    back.hold_refused({row: NotEnoughReplicasError() for row in ROWS})
    assert (back.rows, back.one_by_one_upto, back.topics()) == (set(), 0, {})


def test_a_topic_without_rights_is_tried_again_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    back = HeldBack()
    back.hold_refused({ROWS[0]: TopicAuthorizationFailedError("topic")})
    assert set(back.topics()) == {"topic"}
    monkeypatch.setattr("service.outbox.relay.time.monotonic", lambda: float("inf"))
    assert back.topics() == {}
    assert back.rows == set()
