"""Store the dead letters of a batch, and record the outcomes of replays.

A replayed record names its letter in a header, which any publisher can set. The header counts only when the record has
the topic, key, value and CloudEvents attributes of the letter.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy import text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.core.decode import claimed_letter
from service.core.outcomes import DeadLetter
from service.faults import Kind, read_fault
from service.stream.records import Header, header_as_json, header_from_json

READ_FENCES = text("""
    SELECT k.user_id, k.specialization, f.decided_at
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
     CROSS JOIN LATERAL (
           SELECT f.decided_at FROM levelsync.fences f
            WHERE f.user_id = k.user_id AND f.folded = upper(k.specialization COLLATE "C")
            ORDER BY f.decided_at DESC LIMIT 1) f
""")
"""Read when pairs were last decided, under any spelling of the specialization (law 2)."""

ADD_DEAD_LETTERS = text("""
    INSERT INTO levelsync.dead_letters
           (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
    SELECT v.topic, v.partition, v."offset", v.record_timestamp, v.key, v.value, v.headers, v.reason, v.detail
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                  CAST(:timestamps AS bigint[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]),
                  CAST(:headers AS jsonb[]), CAST(:reasons AS text[]), CAST(:details AS text[]))
           AS v (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
        ON CONFLICT (topic, partition, "offset", record_timestamp, value_digest) DO NOTHING
""")
"""Store whole records. A record that is read again adds no second letter (law 3)."""

FIND_DEAD_LETTERS = text("""
    SELECT v.number
      FROM unnest(CAST(:numbers AS int[]), CAST(:topics AS text[]), CAST(:partitions AS int[]),
                  CAST(:offsets AS bigint[]), CAST(:timestamps AS bigint[]), CAST(:digests AS text[]))
           AS v (number, topic, partition, "offset", record_timestamp, value_digest)
      JOIN levelsync.dead_letters d
        ON d.topic = v.topic AND d.partition = v.partition AND d."offset" = v."offset"
       AND d.record_timestamp = v.record_timestamp AND d.value_digest = v.value_digest
""")
"""Find the records that are dead letters already."""

FIND_OPEN_LETTERS = text("""
    SELECT d.id, d.topic, d.partition, d."offset", d.record_timestamp, d.value_digest
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:first AS bigint[]),
                  CAST(:last AS bigint[])) AS k (topic, partition, first, last)
      JOIN levelsync.dead_letters d ON d.topic = k.topic AND d.partition = k.partition
     WHERE d."offset" BETWEEN k.first AND k.last AND d.resolved_at IS NULL
""")
"""Find the open letters between two offsets of each partition."""

LOCK_REPLAYED = text("""
    SELECT v.number, d.id, d.headers, d.resolved_at IS NULL AS is_open, d.resolution, d.last_attempt_timestamp
      FROM unnest(CAST(:numbers AS int[]), CAST(:ids AS bigint[]), CAST(:topics AS text[]), CAST(:keys AS bytea[]),
                  CAST(:digests AS text[])) AS v (number, id, topic, key, digest)
      JOIN levelsync.dead_letters d ON d.id = v.id
     WHERE d.topic = v.topic AND d.key IS NOT DISTINCT FROM v.key AND d.value_digest = v.digest
     ORDER BY d.id, v.number
       FOR NO KEY UPDATE OF d
""")
"""Lock the letters that records claim to replay, where topic, key and value agree."""

CLOSE_REPLAYED = text("""
    UPDATE levelsync.dead_letters
       SET resolved_at = clock_timestamp(), resolution = 'replayed', replayed_at = NULL
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")
"""Close letters whose records have applied."""

COUNT_FAILED_REPLAYS = text("""
    UPDATE levelsync.dead_letters AS d
       SET attempts = d.attempts + v.times, last_attempt_timestamp = v.timestamp, reason = v.reason, detail = v.detail,
           replayed_at = NULL
      FROM unnest(CAST(:ids AS bigint[]), CAST(:times AS int[]), CAST(:timestamps AS bigint[]),
                  CAST(:reasons AS text[]), CAST(:details AS text[])) AS v (id, times, timestamp, reason, detail)
     WHERE d.id = v.id
""")
"""Count the failed replays of letters, and store the newest reason."""


Records = Sequence[ConsumerRecord]


async def store(
    conn: AsyncConnection,
    records: Records,
    settled: Collection[int],
    letters: Sequence[DeadLetter],
    claims: Mapping[int, int],
) -> None:
    """Write the letters of the records that a transaction settles, and close the letters of records that have applied.

    `letters` are all failures among `settled`. `claims` maps the index of each claimed replay to its letter's id. If a
    letter cannot be written, the transaction fails too, so that no letter is lost.
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
        # The database's encoding is not UTF-8 and lacks a character.
        await _write(conn, records, letters, claimed, "ascii")


async def _close_read_again(conn: AsyncConnection, applied: Records) -> None:
    """Close the open letters of records that were read again and have applied (law 4)."""
    if applied:
        found = (await conn.execute(FIND_OPEN_LETTERS, _ranges(applied))).all()
        ids = {(r.topic, r.partition, r.offset, r.record_timestamp, r.value_digest): r.id for r in found}
        keys = [_key(record) for record in applied] if found else []
        close = [ids[key] for key in keys if key in ids]
        if close:
            await conn.execute(CLOSE_REPLAYED, {"ids": close})


def _ranges(records: Records) -> dict[str, list[Any]]:
    """Return the first and the last offset of each partition."""
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
    """Return what identifies the letter of a record (law 3)."""
    return (record.topic, record.partition, record.offset, record.timestamp, digest(record.value))


async def _write(
    conn: AsyncConnection, records: Records, letters: Sequence[DeadLetter], claimed: Mapping[int, int], encoding: str
) -> None:
    in_order = sorted(letters, key=lambda letter: letter.index)  # so that their replays are published in order
    storable = [DeadLetter(one.index, one.reason, _storable(one.detail, encoding)) for one in in_order]
    new = await record_replays(conn, records, claimed, storable) if claimed else storable
    if new:
        await conn.execute(ADD_DEAD_LETTERS, _values(records, new, encoding))


def _values(records: Records, letters: Sequence[DeadLetter], encoding: str) -> dict[str, list[Any]]:
    sources = [records[letter.index] for letter in letters]
    return {
        "topics": [record.topic for record in sources],
        "partitions": [record.partition for record in sources],
        "offsets": [record.offset for record in sources],
        "timestamps": [record.timestamp for record in sources],
        "keys": [record.key for record in sources],
        "values": [record.value for record in sources],
        "headers": [json.dumps([header_as_json(k, v, encoding) for k, v in record.headers]) for record in sources],
        "reasons": [letter.reason.value for letter in letters],
        "details": [letter.detail for letter in letters],
    }


async def already_stored(
    conn: AsyncConnection, records: Records, indexes: Collection[int], claims: Mapping[int, int]
) -> set[int]:
    """Return the indexes of records that are dead letters already: they are read again (law 3) or replayed."""
    values = {
        "topics": [records[index].topic for index in indexes],
        "partitions": [records[index].partition for index in indexes],
        "offsets": [records[index].offset for index in indexes],
        "timestamps": [records[index].timestamp for index in indexes],
        "digests": [digest(records[index].value) for index in indexes],
        "numbers": list(indexes),
    }
    found = set((await conn.execute(FIND_DEAD_LETTERS, values)).scalars())
    claimed = {index: claims[index] for index in indexes if index in claims}
    return found | (await lock_replayed(conn, records, claimed)).keys() if claimed else found


def _storable(detail: str, encoding: str) -> str:
    """Return the text as PostgreSQL accepts it: without NUL and lone surrogates."""
    return detail.replace("\0", "").encode(encoding, "backslashreplace").decode()


_MEANINGFUL = frozenset({"ce_specversion", "ce_type", "ce_source", "ce_id", "ce_time", "content-type"})
"""The headers that give a record its meaning (law 4)."""


@dataclass(slots=True)
class Replay:
    """The records of one batch that replay the same open letter."""

    last_failed: DeadLetter | None = None
    last_timestamp: int = 0
    times: int = 0
    """How many of them failed and were not counted before."""
    applied: bool = False


def claims(records: Sequence[ConsumerRecord]) -> dict[int, int]:
    """Return the letter ids that records claim to replay, by the record's index."""
    return {index: letter for index, record in enumerate(records) if (letter := claimed_letter(record))}


async def lock_replayed(
    conn: AsyncConnection, records: Sequence[ConsumerRecord], claimed: Mapping[int, int]
) -> dict[int, Any]:
    """Return the letters that the records really replay, by index, locked in the order of their ids."""
    claimed_records = [(index, letter_id, records[index]) for index, letter_id in claimed.items()]
    values = {
        "numbers": [index for index, _, _ in claimed_records],
        "ids": [letter_id for _, letter_id, _ in claimed_records],
        "topics": [record.topic for _, _, record in claimed_records],
        "keys": [record.key for _, _, record in claimed_records],
        "digests": [digest(record.value) for _, _, record in claimed_records],
    }
    rows = (await conn.execute(LOCK_REPLAYED, values)).all()
    return {
        row.number: row
        for row in rows
        if _meaningful(map(header_from_json, row.headers)) == _meaningful(records[row.number].headers)
    }


async def discarded(conn: AsyncConnection, records: Sequence[ConsumerRecord], claimed: Mapping[int, int]) -> set[int]:
    """Return the indexes of records that replay a letter which was discarded after they were sent.

    They must not apply any more. The letters stay locked, so that later discards wait until this transaction ends.
    """
    found = await lock_replayed(conn, records, claimed) if claimed else {}
    return {index for index, row in found.items() if row.resolution == "discarded"}


async def record_replays(
    conn: AsyncConnection,
    records: Sequence[ConsumerRecord],
    claimed: Mapping[int, int],
    letters: Sequence[DeadLetter],
) -> list[DeadLetter]:
    """Record the outcomes of replays in their letters, and return the dead letters that are new."""
    found = await lock_replayed(conn, records, claimed)
    replays = _replays(records, found, {letter.index: letter for letter in letters})
    applied = [letter_id for letter_id, replay in replays.items() if replay.applied]
    if applied:
        await conn.execute(CLOSE_REPLAYED, {"ids": applied})
    failed = {letter_id: replay for letter_id, replay in replays.items() if replay.times and not replay.applied}
    if failed:
        await conn.execute(COUNT_FAILED_REPLAYS, _failed_replays(failed))
    return [letter for letter in letters if letter.index not in found]


def _replays(
    records: Sequence[ConsumerRecord], found: Mapping[int, Any], failed: Mapping[int, DeadLetter]
) -> dict[int, Replay]:
    """Return the replays of open letters, by the letter's id. No failed record is counted twice."""
    replays: dict[int, Replay] = {}
    for index, row in sorted(found.items()):
        if row.is_open:
            replay = replays.setdefault(row.id, Replay(last_timestamp=row.last_attempt_timestamp or 0))
            _add(replay, records[index].timestamp, failed.get(index))
    return replays


def _add(replay: Replay, timestamp: int, letter: DeadLetter | None) -> None:
    if letter is None:
        replay.applied = True
    elif timestamp > replay.last_timestamp:
        replay.last_failed, replay.last_timestamp, replay.times = letter, timestamp, replay.times + 1


def _failed_replays(failed: Mapping[int, Replay]) -> dict[str, list[Any]]:
    letters = [one.last_failed for one in failed.values() if one.last_failed is not None]
    return {
        "ids": list(failed),
        "times": [one.times for one in failed.values()],
        "timestamps": [one.last_timestamp for one in failed.values()],
        "reasons": [letter.reason.value for letter in letters],
        "details": [letter.detail for letter in letters],
    }


def digest(value: bytes | None) -> str:
    """Return the digest of a value, as the column `value_digest` contains it."""
    return "" if value is None else hashlib.sha256(value).hexdigest()


def _meaningful(headers: Any) -> list[Header]:
    return sorted(((name, value) for name, value in headers if name in _MEANINGFUL), key=str)
