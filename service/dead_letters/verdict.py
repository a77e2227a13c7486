"""Judge whether a dead letter would apply now, because its user, specialization or level may exist by now.

The pure functions of the appliers decode the stored record. Nothing is locked or written.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import (
    LICENSE_ADVANCED_TOPIC,
    PROGRESS_LEVELED_UP_TOPIC,
    ContractViolation,
    Reason,
    ReconcileRequested,
    read,
)
from service.apply import dead_letters as apply_sql
from service.apply.batch import screen
from service.core.decode import decode, first_timestamp
from service.core.outcomes import DeadLetter, LevelEvent, microseconds
from service.dead_letters.read import Letter, read_whole
from service.dead_letters.select import Selection, conditions, is_open, size
from service.faults import InstallationFault
from service.levels import Curriculum, read_curriculum
from service.store.tables import dead_letters as table
from service.stream.records import Header, header_from_json

MAX_JUDGED = 100
"""Letters of each reason that are judged for the counts, the newest first. A page waits for this."""
_LARGEST = 16_384
"""Bytes above which a letter is not read for the counts. Events of the contract are much smaller."""
_LEVEL_TOPICS = (PROGRESS_LEVELED_UP_TOPIC, LICENSE_ADVANCED_TOPIC)
_EXISTING = text("SELECT id FROM users WHERE id = ANY(CAST(:users AS bigint[]))")
_WHY_NOW = {
    "unknown_user": "its user exists now",
    "unknown_specialization": "its specialization exists now",
    "level_out_of_range": "its level is within the maximum now",
}


@dataclass(frozen=True, slots=True)
class ReplayVerdict:
    """Whether a replay would close a letter, None if only the database can decide, and the reason (`why`)."""

    would_apply: bool | None
    why: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields that JSON and CSV add to those of a letter."""
        return {"would_apply_now": self.would_apply, "would_apply_why": self.why}


@dataclass(frozen=True, slots=True)
class Applicable:
    """The number of letters that would apply now, among the newest `looked_at` open letters of a reason."""

    looked_at: int
    would_apply: int


@dataclass(slots=True)
class _Record:
    """The parts of a stored record that decoding needs."""

    topic: str
    timestamp: int
    value: bytes | None
    headers: Sequence[Header]


async def judge(
    conn: AsyncConnection, letters: Sequence[Letter], apply_since: datetime | None = None
) -> list[ReplayVerdict]:
    """Judge letters as an applier would now. Return a verdict for each, in their order."""
    try:
        curriculum = await read_curriculum(conn)
    except InstallationFault as fault:
        return [ReplayVerdict(would_apply=None, why=str(fault))] * len(letters)
    found = {
        number: _judge_other(one, curriculum) for number, one in enumerate(letters) if one.topic not in _LEVEL_TOPICS
    }
    numbers = [number for number in range(len(letters)) if number not in found]
    verdicts = await _judge_levels(conn, [letters[number] for number in numbers], curriculum, apply_since)
    found |= dict(zip(numbers, verdicts, strict=True))
    return [found[number] for number in range(len(letters))]


async def applicable(conn: AsyncConnection, reason: str, apply_since: datetime | None = None) -> Applicable:
    """Judge the newest open letters of a reason."""
    letters = await read_whole(conn, [is_open(), table.c.reason == reason, _small()], MAX_JUDGED)
    verdicts = await judge(conn, letters, apply_since)
    return Applicable(len(letters), sum(verdict.would_apply is True for verdict in verdicts))


async def judge_by_id(
    conn: AsyncConnection, ids: Sequence[int], apply_since: datetime | None = None
) -> dict[int, ReplayVerdict]:
    """Judge the letters that are open and at most `_LARGEST` bytes large."""
    letters = await read_whole(conn, [*conditions(Selection(ids=tuple(ids))), _small()], len(ids))
    verdicts = await judge(conn, letters, apply_since)
    return {letter.id: verdict for letter, verdict in zip(letters, verdicts, strict=True)}


def _small() -> ColumnElement[bool]:
    """Return the condition for letters so small that a thousand of them fit into memory."""
    return size() <= _LARGEST


async def _judge_levels(
    conn: AsyncConnection, letters: Sequence[Letter], curriculum: Curriculum, apply_since: datetime | None
) -> list[ReplayVerdict]:
    """Judge letters of level topics together, or one by one if the maximum of a specialization is unknown."""
    try:
        screened = screen(decode([_record(letter) for letter in letters]), curriculum, apply_since)
    except InstallationFault as fault:
        if len(letters) == 1:
            return [ReplayVerdict(would_apply=None, why=str(fault))]
        return [verdict for one in letters for verdict in await _judge_levels(conn, [one], curriculum, apply_since)]
    verdicts = {letter.index: _fails(letter) for letter in screened.letters}
    verdicts |= dict.fromkeys(
        screened.superseded, ReplayVerdict(would_apply=True, why="it counts as superseded: older than APPLY_SINCE")
    )
    users = await _existing(conn, screened.events)
    fenced = await _fenced(conn, screened.events)
    for event in screened.events:
        verdicts[event.index] = _judge_event(letters[event.index], event, users, fenced)
    return [verdicts[index] for index in range(len(letters))]


async def _existing(conn: AsyncConnection, events: Sequence[LevelEvent]) -> set[int]:
    users = sorted({event.user_id for event in events})
    return set((await conn.execute(_EXISTING, {"users": users})).scalars()) if users else set()


async def _fenced(conn: AsyncConnection, events: Sequence[LevelEvent]) -> set[int]:
    """Return the indexes of events that a later decision supersedes (law 2)."""
    if not events:
        return set()
    keys = {"users": [e.user_id for e in events], "specializations": [e.specialization for e in events]}
    fences = {(row[0], row[1]): row[2] for row in await conn.execute(apply_sql.READ_FENCES, keys)}
    pairs = {event.index: fences.get((event.user_id, event.specialization)) for event in events}
    return {e.index for e in events if (fence := pairs[e.index]) is not None and e.decided_us <= microseconds(fence)}


def _judge_event(letter: Letter, event: LevelEvent, users: set[int], fenced: set[int]) -> ReplayVerdict:
    if event.index in fenced:
        return ReplayVerdict(would_apply=True, why="it counts as superseded: a later decision overrules it")
    if event.user_id not in users:
        return _fails(DeadLetter(event.index, Reason.UNKNOWN_USER, f"there is no user {event.user_id}"))
    return _applies(letter)


def _judge_other(letter: Letter, curriculum: Curriculum) -> ReplayVerdict:
    """Judge a letter of a `sync.*` topic."""
    record = _record(letter)
    try:
        event = read(record.topic, record.value, record.headers, first_timestamp(record)).event
    except ContractViolation as violation:
        return _fails(DeadLetter(0, violation.reason, violation.detail))
    name = event.specialization if isinstance(event, ReconcileRequested) else None
    if name is not None and curriculum.canonical(name) is None:
        return _fails(DeadLetter(0, Reason.UNKNOWN_SPECIALIZATION, f"there is no specialization {name!r}"))
    return _applies(letter)


def _applies(letter: Letter) -> ReplayVerdict:
    if letter.reason == Reason.REFUSED_BY_DATABASE:
        return ReplayVerdict(would_apply=None, why="only a replay shows whether PostgreSQL still refuses it")
    return ReplayVerdict(would_apply=True, why=_WHY_NOW.get(letter.reason, "this release can read it"))


def _fails(letter: DeadLetter) -> ReplayVerdict:
    return ReplayVerdict(would_apply=False, why=f"{letter.reason.value}: {letter.detail}")


def _record(letter: Letter) -> _Record:
    headers = [header_from_json(header) for header in letter.headers]
    return _Record(letter.topic, letter.record_timestamp, letter.value, headers)
