"""Dead letters that come back: a replay closes its letter, or raises the letter's count, in its batch's transaction.

The header that names the letter may be anybody's: it counts only on a record that is the letter's own, with the same
topic, key, value and CloudEvents attributes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import ConsumerRecord
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import sql
from service.apply.decode import claimed_letter
from service.apply.outcomes import DeadLetter
from service.kafka.headers import Header, header_from_json

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
    """What becomes of the letters: ids to close, and by id those that failed again."""

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
