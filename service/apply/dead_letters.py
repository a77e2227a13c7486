"""Keeping records that can never apply, whole (law 4), and what a replay says about those that are kept."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import replayed, sql
from service.apply.outcomes import DeadLetter
from service.database.faults import Kind, read_fault
from service.kafka.headers import header_as_json

Records = Sequence[ConsumerRecord]


async def keep(
    conn: AsyncConnection,
    records: Records,
    settled: Collection[int],
    letters: Sequence[DeadLetter],
    claims: Mapping[int, int],
) -> None:
    """Write the letters of the records that a transaction settles; close those of records that have applied now.

    `letters` are all of `settled` that failed; `claims` say which records are replays. Where a letter cannot be
    written, the transaction fails with it: it is never dropped.
    """
    claimed = {index: letter for index, letter in claims.items() if index in settled}
    failed = {letter.index for letter in letters}
    await _close_read_again(conn, [records[index] for index in settled if index not in failed])
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


async def _close_read_again(conn: AsyncConnection, applied: Records) -> None:
    """Close the open letters of records that were read again and have applied (law 4)."""
    if applied:
        found = (await conn.execute(sql.FIND_OPEN_LETTERS, _ranges(applied))).all()
        ids = {(r.topic, r.partition, r.offset, r.record_timestamp, r.value_digest): r.id for r in found}
        keys = [_key(record) for record in applied] if found else []
        close = [ids[key] for key in keys if key in ids]
        if close:
            await conn.execute(sql.CLOSE_REPLAYED, {"ids": close})


def _ranges(records: Records) -> dict[str, list[Any]]:
    """The first and the last offset of each partition."""
    offsets: dict[tuple[str, int], list[int]] = {}
    for record in records:
        offsets.setdefault((record.topic, record.partition), []).append(record.offset)
    return {
        "topics": [topic for topic, _ in offsets],
        "partitions": [partition for _, partition in offsets],
        "first": [min(ones) for ones in offsets.values()],
        "last": [max(ones) for ones in offsets.values()],
    }


def _key(record: ConsumerRecord) -> tuple[object, ...]:
    """What makes a letter the same (law 3)."""
    return (record.topic, record.partition, record.offset, record.timestamp, replayed.digest(record.value))


async def _write(
    conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter], claimed: Mapping[int, int], encoding: str
) -> None:
    in_order = sorted(letters, key=lambda letter: letter.index)  # so that their replays are published in order
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


async def kept(
    conn: AsyncConnection, records: Records, indexes: Collection[int], claims: Mapping[int, int]
) -> set[int]:
    """Return which records are dead letters already, open or not: they are read again (law 3), or replayed."""
    values = {
        "topics": [records[index].topic for index in indexes],
        "partitions": [records[index].partition for index in indexes],
        "offsets": [records[index].offset for index in indexes],
        "timestamps": [records[index].timestamp for index in indexes],
        "digests": [replayed.digest(records[index].value) for index in indexes],
        "numbers": list(indexes),
    }
    found = set((await conn.execute(sql.FIND_DEAD_LETTERS, values)).scalars())
    claimed = {index: claims[index] for index in indexes if index in claims}
    return found | (await replayed.genuine(conn, records, claimed)).keys() if claimed else found


def _storable(detail: str, encoding: str) -> str:
    """Text as PostgreSQL takes it: no NUL, no lone surrogate."""
    return detail.replace("\0", "").encode(encoding, "backslashreplace").decode()
