"""Keep the dead letters of a batch, and settle those that are replayed.

The header that names the letter may be anybody's: it counts only on a record that is the letter's own, with the same
topic, key, value and CloudEvents attributes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import sql
from service.core.decode import claimed_letter
from service.core.outcomes import DeadLetter
from service.faults import Kind, read_fault
from service.stream.records import Header, header_as_json, header_from_json

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
    return (record.topic, record.partition, record.offset, record.timestamp, digest(record.value))


async def _write(
    conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter], claimed: Mapping[int, int], encoding: str
) -> None:
    in_order = sorted(letters, key=lambda letter: letter.index)  # so that their replays are published in order
    storable = [DeadLetter(one.index, one.reason, _storable(one.detail, encoding)) for one in in_order]
    new = await settle(conn, records, claimed, storable) if claimed else storable
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
        "digests": [digest(records[index].value) for index in indexes],
        "numbers": list(indexes),
    }
    found = set((await conn.execute(sql.FIND_DEAD_LETTERS, values)).scalars())
    claimed = {index: claims[index] for index in indexes if index in claims}
    return found | (await genuine(conn, records, claimed)).keys() if claimed else found


def _storable(detail: str, encoding: str) -> str:
    """Text as PostgreSQL takes it: no NUL, no lone surrogate."""
    return detail.replace("\0", "").encode(encoding, "backslashreplace").decode()


_MEANT = frozenset({"ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "content-type"})
"""The headers that decide what a record says (law 4)."""


@dataclass(slots=True)
class Replay:
    """The records of one batch that are replays of one open letter."""

    last_failed: DeadLetter | None = None
    last_timestamp: int = 0
    times: int = 0
    """How many of them failed for the first time."""
    applied: bool = False


@dataclass(slots=True)
class Settlement:
    """The outcome of the letters: ids to close, and by id those that failed again."""

    close: list[int] = field(default_factory=list)
    failed: dict[int, Replay] = field(default_factory=dict)


def claims(records: Sequence[ConsumerRecord]) -> dict[int, int]:
    """Return which records claim to be replays: the letter's id by the record's index."""
    return {index: letter for index, record in enumerate(records) if (letter := claimed_letter(record))}


async def genuine(
    conn: AsyncConnection, records: Sequence[ConsumerRecord], claimed: Mapping[int, int]
) -> dict[int, Any]:
    """The letters that the records are replays of, by index, locked in the order of their ids."""
    said = [(index, letter_id, records[index]) for index, letter_id in claimed.items()]
    values = {
        "numbers": [index for index, _, _ in said],
        "ids": [letter_id for _, letter_id, _ in said],
        "topics": [record.topic for _, _, record in said],
        "keys": [record.key for _, _, record in said],
        "digests": [digest(record.value) for _, _, record in said],
    }
    rows = (await conn.execute(sql.LOCK_REPLAYED, values)).all()
    return {
        row.number: row
        for row in rows
        if _meant(map(header_from_json, row.headers)) == _meant(records[row.number].headers)
    }


async def discarded(conn: AsyncConnection, records: Sequence[ConsumerRecord], claimed: Mapping[int, int]) -> set[int]:
    """Which records, by index, are replays of letters that were discarded while these were on their way.

    Nobody wants them applied any more. The letters stay locked, so that a discard that comes now comes too late.
    """
    found = await genuine(conn, records, claimed) if claimed else {}
    return {index for index, row in found.items() if row.resolution == "discarded"}


async def settle(
    conn: AsyncConnection,
    records: Sequence[ConsumerRecord],
    claimed: Mapping[int, int],
    letters: Sequence[DeadLetter],
) -> list[DeadLetter]:
    """Close or raise the letters whose replays are among the records; returns the dead letters that are new."""
    found = await genuine(conn, records, claimed)
    settlement = _settlement(records, found, {letter.index: letter for letter in letters})
    if settlement.close:
        await conn.execute(sql.CLOSE_REPLAYED, {"ids": settlement.close})
    if settlement.failed:
        await conn.execute(sql.RAISE_REPLAYED, _raised(settlement.failed))
    return [letter for letter in letters if letter.index not in found]


def _settlement(
    records: Sequence[ConsumerRecord], found: Mapping[int, Any], failed: Mapping[int, DeadLetter]
) -> Settlement:
    """A letter that is resolved stays as it is; a record that is read again raises no count a second time."""
    replays: dict[int, Replay] = {}
    for index, row in sorted(found.items()):
        if row.is_open:
            replay = replays.setdefault(row.id, Replay(last_timestamp=row.last_attempt_timestamp or 0))
            _add(replay, records[index].timestamp, failed.get(index))
    close = [letter_id for letter_id, replay in replays.items() if replay.applied]
    again = {letter_id: one for letter_id, one in replays.items() if one.times and not one.applied}
    return Settlement(close, again)


def _add(replay: Replay, timestamp: int, letter: DeadLetter | None) -> None:
    if letter is None:
        replay.applied = True
    elif timestamp > replay.last_timestamp:
        replay.last_failed, replay.last_timestamp, replay.times = letter, timestamp, replay.times + 1


def _raised(failed: Mapping[int, Replay]) -> dict[str, list[Any]]:
    letters = [one.last_failed for one in failed.values() if one.last_failed is not None]
    return {
        "ids": list(failed),
        "times": [one.times for one in failed.values()],
        "timestamps": [one.last_timestamp for one in failed.values()],
        "reasons": [letter.reason.value for letter in letters],
        "details": [letter.detail for letter in letters],
    }


def digest(value: bytes | None) -> str:
    """Return a record's digest as the column `value_digest` has it."""
    return "" if value is None else hashlib.sha256(value).hexdigest()


def _meant(headers: Any) -> list[Header]:
    return sorted(((name, value) for name, value in headers if name in _MEANT), key=str)
