"""The one call: a batch's arrays in, a small result out (`service/store/levels_v1.sql`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from aiokafka import TopicPartition
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.apply.outcomes import LevelEvent, Outcome
from service.apply.positions import DatabaseWentBack, Evicted, TopicRecreated, differ
from service.apply.progress import Way, Work
from service.apply.targets import Target
from service.database.faults import READ_ONLY, Fault, Kind, read_fault
from service.store.curriculum import Known

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
    """What is applied, how, and where the positions go with it."""

    target: Target
    known: Known
    work: Work
    events: Sequence[LevelEvent]
    way: Way
    positions: Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Result:
    """What a call did. `letters` is true where it did nothing, because dead letters are concerned."""

    letters: bool
    outcomes: Mapping[int, Outcome]
    """Of every event that is not held, by its record's index."""
    held: Sequence[LevelEvent] = ()
    unknown: Sequence[LevelEvent] = ()
    """Events of users who do not exist."""
    refused: Mapping[int, Fault] = field(default_factory=dict)


_TARGETS = ("license", "progress")
_IN_NUMBERS = ", ".join(f"${number}::{kind}" for number, kind in enumerate(_TYPES.values(), 1))
_BY_NAME = ", ".join(f"CAST(:{name} AS {kind})" for name, kind in _TYPES.items())
_ALONE = {name: f"SELECT * FROM levelsync.apply_{name}_v1({_IN_NUMBERS})" for name in _TARGETS}
_WITHIN = {name: text(f"SELECT * FROM levelsync.apply_{name}_v1({_BY_NAME})") for name in _TARGETS}


async def call_alone(engine: AsyncEngine, call: Call) -> Result:
    """Make the call its own transaction, on the connection itself: SQLAlchemy costs as much as a small batch."""
    values = _values(call)
    pooled = await engine.raw_connection()
    connection: Any = pooled.driver_connection
    try:
        row = await connection.fetchrow(_ALONE[call.target.name], *[values[name] for name in _TYPES])
    except BaseException as error:
        if connection.is_closed() or read_fault(error).sqlstate == READ_ONLY:  # as the engine does for its own
            pooled.invalidate()
        raise
    finally:
        pooled.close()
    return _result(call, row)


async def call_within(conn: AsyncConnection, call: Call) -> Result:
    """Make the call a part of the caller's transaction, which moves the positions itself."""
    row = (await conn.execute(_WITHIN[call.target.name], _values(call))).mappings().one()
    return _result(call, dict(row))


async def move_positions(conn: AsyncConnection, work: Work, positions: Mapping[TopicPartition, int]) -> None:
    """Move the rows that a call has locked and compared in this transaction."""
    moved = sorted(positions)
    values = {"topics": [tp.topic for tp in moved], "partitions": [tp.partition for tp in moved], "count": len(moved)}
    epochs = [work.epoch_at(tp, positions[tp]) for tp in moved]
    await conn.execute(_MOVE, values | {"next": [positions[tp] for tp in moved], "epochs": epochs})


def _values(call: Call) -> dict[str, Any]:
    partitions = sorted(call.work.expected)
    slots = {tp: number for number, tp in enumerate(partitions, 1)}
    first: dict[TopicPartition, int] = {}
    records, slot_of = call.work.batch.records, []
    for event in call.events:
        record = records[event.index]
        tp = TopicPartition(record.topic, record.partition)
        first.setdefault(tp, record.offset)
        slot_of.append(slots[tp])
    return {
        "topics": [tp.topic for tp in partitions],
        "partitions": [tp.partition for tp in partitions],
        "topic_ids": [call.work.batch.topic_ids.get(tp.topic, "") for tp in partitions],
        "expected": [call.work.expected[tp] for tp in partitions],
        "first": [first.get(tp) for tp in partitions],
        "next": [call.positions.get(tp) for tp in partitions],
        "epochs": [call.work.epoch_at(tp, call.positions.get(tp, -1)) for tp in partitions],
        "curriculum": call.known.fingerprint,
        **_events(call.events),
        "slots": slot_of or [0] * len(call.events),
        "defaults": call.target.defaults,
        "way": call.way.value,
    }


def _events(events: Sequence[LevelEvent]) -> dict[str, Any]:
    """Return the events' arrays. Pairs are sorted by user and name, which is the order of all locks."""
    names = sorted({event.specialization for event in events})
    numbers = {name: number for number, name in enumerate(names, 1)}
    keys = [(event.user_id, numbers[event.specialization]) for event in events]
    pairs = sorted(set(keys))
    places = {pair: place for place, pair in enumerate(pairs, 1)}
    return {
        "names": names,
        "users": [user for user, _ in pairs],
        "specs": [spec for _, spec in pairs],
        "pairs": [places[key] for key in keys],
        "levels": [event.to_level for event in events],
        "times": [event.occurred_us for event in events],
        "decided": [event.decided_us for event in events],
        "reasons": [event.origin for event in events],
    }


def _result(call: Call, row: Mapping[str, Any]) -> Result:
    if row["status"] == "moved":
        _raise_moved(call.work, row["positions"], row["topic_ids"])
    if row["status"] == "letters":
        return Result(letters=True, outcomes={})
    coded = list(zip(call.events, row["outcomes"] or "", strict=True))
    return Result(
        letters=False,
        outcomes={event.index: _OUTCOMES[code] for event, code in coded if code != _HELD},
        held=[event for event, code in coded if code == _HELD],
        unknown=[event for event, code in coded if code == _UNKNOWN_USER],
        refused=_refused(call.events, row["refusals"]),
    )


def _raise_moved(work: Work, found: Sequence[int], topic_ids: Sequence[str]) -> None:
    """Say what the position rows that are not as this consumer left them mean (law 3)."""
    for partition, row, topic_id in zip(sorted(work.expected), found, topic_ids, strict=True):
        left, name = work.expected[partition], f"{partition.topic}-{partition.partition}"
        if differ(topic_id, work.batch.topic_ids.get(partition.topic, "")):
            raise TopicRecreated(f"{name}: the row counts on topic {topic_id}, not on the one that was read")
        if row != left:
            raise (Evicted if row > left else DatabaseWentBack)(f"{name}: row at {row}, left at {left}")


def _refused(events: Sequence[LevelEvent], found: Any) -> dict[int, Fault]:
    refusals = json.loads(found) if isinstance(found, str) else found or ()
    return {events[one["event"] - 1].index: _fault(one) for one in refusals}


def _fault(one: Mapping[str, Any]) -> Fault:
    said, more = one["message"], one["detail"]
    message = " ".join((f"{said} ({more})" if more else said).split())[:2000]
    return Fault(Kind.RECORD, one["sqlstate"], one["constraint"] or "", message)
