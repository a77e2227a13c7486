"""Keeping records that can never apply, whole (law 4), and what a replay says about those that are kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import replayed, sql
from service.apply.outcomes import DeadLetter
from service.database.faults import Kind, read_fault
from service.kafka.headers import header_as_json

Records = Sequence[ConsumerRecord]


async def keep(conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter]) -> None:
    """Write the letters of one batch, and settle those whose replays are in it; `letters` are all that failed.

    Where that fails, the batch fails with it: a letter is never dropped.
    """
    claimed = replayed.claims(records)
    if not letters and not claimed:
        return
    try:
        async with conn.begin_nested():
            await _write(conn, records, letters, claimed, "utf-8")
    except DBAPIError as error:
        if read_fault(error).kind is not Kind.RECORD:
            raise
        # The database's own encoding is not UTF-8 and lacks a character.
        await _write(conn, records, letters, claimed, "ascii")


async def _write(
    conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter], claimed: dict[int, int], encoding: str
) -> None:
    in_order = sorted(letters, key=lambda letter: letter.index)  # as their replays shall be
    storable = [DeadLetter(one.index, one.reason, _storable(one.detail, encoding)) for one in in_order]
    new = await replayed.settle(conn, records, claimed, storable) if claimed else storable
    if new:
        await conn.execute(sql.ADD_DEAD_LETTERS, _values(records, new, encoding))


def _values(records: Records, letters: Sequence[DeadLetter], encoding: str) -> dict[str, list[Any]]:
    whole = [records[letter.index] for letter in letters]
    return {
        "topics": [record.topic for record in whole],
        "partitions": [record.partition for record in whole],
        "offsets": [record.offset for record in whole],
        "timestamps": [record.timestamp for record in whole],
        "keys": [record.key for record in whole],
        "values": [record.value for record in whole],
        "headers": [json.dumps([header_as_json(k, v, encoding) for k, v in record.headers]) for record in whole],
        "reasons": [letter.reason.value for letter in letters],
        "details": [letter.detail for letter in letters],
    }


async def is_kept(conn: AsyncConnection, record: ConsumerRecord) -> bool:
    """Whether the record is a dead letter already, open or not: it is read again (law 3), or replayed."""
    values = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    values |= {"timestamp": record.timestamp, "value": record.value}
    if (await conn.execute(sql.FIND_DEAD_LETTER, values)).scalar_one():
        return True
    claimed = replayed.claims([record])
    return bool(claimed and await replayed.genuine(conn, [record], claimed))


def _storable(detail: str, encoding: str) -> str:
    """Text as PostgreSQL takes it: no NUL, no lone surrogate."""
    return detail.replace("\0", "").encode(encoding, "backslashreplace").decode()
