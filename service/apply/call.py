"""The call of the stored function that applies a batch (`service/store/levels_v1.sql`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply.progress import Way
from service.core.outcomes import LevelEvent, Outcome
from service.faults import READ_ONLY, Fault, Kind, read_fault
from service.levels import CurriculumSnapshot
from service.stream.positions import Batch, check_row


@dataclass(frozen=True, slots=True)
class Target:
    """One of the two level tables: the name of its stored functions, and the application's defaults for new rows."""

    name: str
    defaults: str
    """JSON object with values of columns that levelsync does not know."""


def license_target(defaults: Mapping[str, Any]) -> Target:
    """Return the target `user_licenses`, whose rises are recorded in `license_progressions`."""
    return Target("license", json.dumps(defaults))


def progress_target(defaults: Mapping[str, Any]) -> Target:
    """Return the target `specialization_progress`, which has no history."""
    return Target("progress", json.dumps(defaults))


_TYPES = {
    "topics": "text[]",
    "partitions": "int[]",
    "topic_ids": "text[]",
    "expected": "bigint[]",
    "first": "bigint[]",
    "next": "bigint[]",
    "epochs": "int[]",
    "curriculum": "text",
    "names": "text[]",
    "users": "bigint[]",
    "specs": "int[]",
    "pairs": "int[]",
    "slots": "int[]",
    "levels": "int[]",
    "times": "bigint[]",
    "decided": "bigint[]",
    "reasons": "text[]",
    "defaults": "jsonb",
    "way": "text",
}
_MOVE = text("""
    SELECT levelsync.move_positions_v1(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:next AS bigint[]),
                                       CAST(:epochs AS int[]), array_fill(false, ARRAY[CAST(:count AS int)]))
""")
_OUTCOMES = {
    "a": Outcome.APPLIED,
    "c": Outcome.CREATED,
    "e": Outcome.EQUAL,
    "b": Outcome.AHEAD,
    "s": Outcome.SUPERSEDED,
    "u": Outcome.DEAD_LETTERED,
    "r": Outcome.DEAD_LETTERED,
}
_HELD, _UNKNOWN_USER = "h", "u"


@dataclass(frozen=True, slots=True)
class Call:
    """The arguments of one call: the events, how to apply them, and the positions to move to."""

    target: Target
    snapshot: CurriculumSnapshot
    batch: Batch
    expected: Mapping[TopicPartition, int]
    """The positions that the rows must contain, or the call raises."""
    events: Sequence[LevelEvent]
    way: Way
    positions: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Result:
    """The outcomes of one call."""

    outcomes: dict[int, Outcome]
    """The outcome of every event that is not held, by its record's index."""
    held: Sequence[LevelEvent] = ()
    unknown: Sequence[LevelEvent] = ()
    """Events whose user does not exist."""
    refused: Mapping[int, Fault] = field(default_factory=dict)


_TARGETS = ("license", "progress")
_NUMBERED = ", ".join(f"${number}::{kind}" for number, kind in enumerate(_TYPES.values(), 1))
_NAMED = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in _TYPES.items())
_ALONE = {name: f"SELECT * FROM levelsync.apply_{name}_v1({_NUMBERED})" for name in _TARGETS}
_WITHIN = {name: text(f"SELECT * FROM levelsync.apply_{name}_v1({_NAMED})") for name in _TARGETS}


async def call_alone(engine: AsyncEngine, call: Call) -> Result | None:
    """Call the function in its own transaction. Return None, with nothing written, if there are dead letters to write.

    It uses the asyncpg connection directly, because SQLAlchemy costs as much as a small batch.
    """
    pooled = await engine.raw_connection()
    connection: Any = pooled.driver_connection
    try:
        row = await connection.fetchrow(_ALONE[call.target.name], *_arguments(call))
    except BaseException as error:
        if connection.is_closed() or read_fault(error).sqlstate == READ_ONLY:  # as the engine does itself
            pooled.invalidate()
        raise
    finally:
        pooled.close()
    status, positions, topic_ids, codes, _ = row
    if status == "moved":
        _raise_moved(call, positions, topic_ids)
    if status == "letters":
        return None
    events, codes = call.events, codes or ""
    if _HELD not in codes:
        return Result({event.index: _OUTCOMES[code] for event, code in zip(events, codes, strict=True)})
    coded = list(zip(events, codes, strict=True))
    outcomes = {event.index: _OUTCOMES[code] for event, code in coded if code != _HELD}
    return Result(outcomes, [event for event, code in coded if code == _HELD])


async def call_within(conn: AsyncConnection, call: Call) -> Result:
    """Call the function in the caller's transaction. The caller moves the positions."""
    values = dict(zip(_TYPES, _arguments(call), strict=True))
    row = (await conn.execute(_WITHIN[call.target.name], values)).one()
    if row.status == "moved":
        _raise_moved(call, row.positions, row.topic_ids)
    coded = list(zip(call.events, row.outcomes or "", strict=True))
    return Result(
        outcomes={event.index: _OUTCOMES[code] for event, code in coded if code != _HELD},
        held=[event for event, code in coded if code == _HELD],
        unknown=[event for event, code in coded if code == _UNKNOWN_USER],
        refused=_refused(call.events, row.refusals),
    )


async def move_positions(conn: AsyncConnection, batch: Batch, positions: Mapping[TopicPartition, int]) -> None:
    """Move the position rows that a call has locked and compared in this transaction."""
    moved = sorted(positions)
    values = {"topics": [tp.topic for tp in moved], "partitions": [tp.partition for tp in moved], "count": len(moved)}
    epochs = [batch.epoch_at(tp, positions[tp]) for tp in moved]
    await conn.execute(_MOVE, values | {"next": [positions[tp] for tp in moved], "epochs": epochs})


def _arguments(call: Call) -> tuple[Any, ...]:
    """Return the function's arguments, in the order of `_TYPES`.

    Pairs are sorted by user and name, which is the order of all locks.
    """
    batch, events, records = call.batch, call.events, call.batch.records
    partitions = sorted(call.expected)
    slot_of = {tp.partition: number for number, tp in enumerate(partitions, 1)}  # all partitions are of one topic
    slots = [slot_of[records[event.index].partition] for event in events] if records else [0] * len(events)
    first = {number: events[slots.index(number)].index for number in set(slots)} if records else {}
    epochs, to = batch.leader_epochs, call.positions
    names = sorted({event.specialization for event in events})
    numbers = {name: number for number, name in enumerate(names)}
    count = len(names)
    keys = [event.user_id * count + numbers[event.specialization] for event in events]
    pairs = sorted(set(keys))  # one number for each pair sorts faster than two
    place_of = {pair: place for place, pair in enumerate(pairs, 1)}
    return (
        [tp.topic for tp in partitions],
        [tp.partition for tp in partitions],
        [batch.topic_ids.get(tp.topic, "") for tp in partitions],
        [call.expected[tp] for tp in partitions],
        [records[first[number]].offset if number in first else None for number in range(1, len(partitions) + 1)],
        [to.get(tp) for tp in partitions],
        [epochs.get(tp, -1) if to.get(tp) == batch.positions.get(tp) else -1 for tp in partitions],
        call.snapshot.fingerprint,
        names,
        [pair // count for pair in pairs],
        [pair % count + 1 for pair in pairs],
        [place_of[key] for key in keys],
        slots,
        [event.to_level for event in events],
        [event.occurred_us for event in events],
        [event.decided_us for event in events],
        [event.origin for event in events],
        call.target.defaults,
        call.way.value,
    )


def _raise_moved(call: Call, found: Sequence[int], topic_ids: Sequence[str]) -> None:
    """Raise the exception for position rows that differ from what this consumer stored last (law 3)."""
    for partition, offset, topic_id in zip(sorted(call.expected), found, topic_ids, strict=True):
        check_row(call.batch, partition, call.expected[partition], offset, topic_id)


def _refused(events: Sequence[LevelEvent], found: Any) -> dict[int, Fault]:
    refusals = json.loads(found) if isinstance(found, str) else found or ()
    return {events[one["event"] - 1].index: _fault(one) for one in refusals}


def _fault(one: Mapping[str, Any]) -> Fault:
    message, detail = one["message"], one["detail"]
    words = (f"{message} ({detail})" if detail else message).split()
    return Fault(Kind.RECORD, one["sqlstate"], one["constraint"] or "", " ".join(words)[:2000])
