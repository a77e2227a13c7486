"""Apply one batch: with one call of a stored function (law 3), or in parts where that call cannot commit everything.

A batch continues in smaller parts when the database refuses a record. Held pairs come last and one at a time. Another
transaction has locked a row of such a pair. Each part is one transaction. A committed part is not decided again, so a
batch that is applied again after a fault continues where it stopped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import cast

from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Reason
from service.apply import dead_letters
from service.apply.call import Call, Result, Target, call_alone, call_within, move_positions
from service.apply.progress import MAX_SET_ASIDE, BatchWork, Item, Refusals, RefusedAll, Way
from service.core.decode import decode
from service.core.outcomes import DeadLetter, LevelEvent, Outcome, microseconds
from service.faults import Fault, InstallationFault, Kind, read_fault
from service.levels import Curriculum, CurriculumSnapshot, read_snapshot
from service.store.catalog import repair_of_sequence
from service.stream.positions import Batch


@dataclass(slots=True)
class Screened:
    """The events to decide, the dead letters so far, and the indexes of events that `APPLY_SINCE` supersedes."""

    events: list[LevelEvent] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    superseded: list[int] = field(default_factory=list)


def screen(
    decoded: Sequence[LevelEvent | DeadLetter], curriculum: Curriculum, apply_since: datetime | None
) -> Screened:
    """Sort a decoded batch into events to decide, dead letters and superseded events.

    Raises:
        InstallationFault: the maximum of an event's specialization is unknown. Its events wait (law 4).
    """
    result, since = Screened(), None if apply_since is None else microseconds(apply_since)
    levels = curriculum.levels
    for item in decoded:
        if isinstance(item, DeadLetter):
            result.letters.append(item)
        elif since is not None and item.decided_us < since:
            result.superseded.append(item.index)
        elif item.to_level <= levels.get(item.specialization, 0):  # true for most events, so that they cost no call
            result.events.append(item)
        else:
            _check_level(item, curriculum, result)
    return result


def _check_level(event: LevelEvent, curriculum: Curriculum, result: Screened) -> None:
    canonical = curriculum.canonical(event.specialization)
    if canonical is None:
        result.letters.append(
            DeadLetter(
                event.index, Reason.UNKNOWN_SPECIALIZATION, f"there is no specialization {event.specialization!r}"
            )
        )
    elif event.to_level > (maximum := curriculum.max_level(canonical)):
        detail = f"level {event.to_level} is above the maximum {maximum} of {canonical}"
        result.letters.append(DeadLetter(event.index, Reason.LEVEL_OUT_OF_RANGE, detail))
    else:
        known = event if event.specialization == canonical else replace(event, specialization=canonical)
        result.events.append(known)


PART = 100
"""Maximum number of records in a transaction that tries each record separately. It bounds how long it locks rows."""
_MAX_CONFLICTS = 3
"""Number of conflicts in one attempt after which records are tried one by one."""
_WRITTEN = frozenset({Outcome.APPLIED, Outcome.CREATED})


@dataclass(slots=True)
class Applied:
    """The effect of a committed batch: its decoded records, their outcomes by index, and the dead letters."""

    decoded: Sequence[Item] = ()
    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    letters: Sequence[DeadLetter] = ()
    left: Sequence[Batch] = ()
    """The records of held pairs that are not applied yet, one batch for each partition (`Applier.leaves_held`)."""


@dataclass(slots=True)
class Applier:
    """Applies batches to one target (`service.apply.subscriber.TopicWork`). Each consumer has its own."""

    engine: AsyncEngine
    target: Target
    apply_since: datetime | None = None
    leaves_held: bool = False
    """Whether held pairs are returned to the caller (`Applied.left`) instead of waited for."""
    refusals: Refusals = field(default_factory=Refusals)
    """The refusals in a row, across batches."""
    refused_all: bool = False
    """Whether the last attempt at this batch ended in `RefusedAll`."""
    _snapshot: CurriculumSnapshot | None = None
    _work: BatchWork | None = None
    """The batch that is being applied in parts, until all of it is settled."""

    async def apply(self, batch: Batch) -> Applied:
        """Decode and apply one batch. After an exception, a call with the same batch object continues.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows differ from what this consumer stored last.
            Exception: any error of the database. The caller classifies it with `read_fault` and retries.
        """
        decoded, snapshot = decode(batch.records), self._snapshot
        if self._work is not None and self._work.batch is batch:
            return await self._apply_in_parts(batch, decoded)
        if snapshot is None or snapshot.curriculum.faults:
            snapshot = await self._read_snapshot()
        levels = snapshot.curriculum.levels
        plain = self.apply_since is None and all(
            type(item) is LevelEvent and not item.letter and item.to_level <= levels.get(item.specialization, 0)
            for item in decoded
        )
        events = cast("list[LevelEvent]", decoded)
        screened = Screened(events) if plain else screen(decoded, snapshot.curriculum, self.apply_since)
        if screened.letters or (not plain and any(event.letter for event in screened.events)):
            return await self._apply_in_parts(batch, decoded)
        call = Call(self.target, snapshot, batch, batch.expected, screened.events, Way.QUICK, batch.positions)
        try:
            result = await call_alone(self.engine, call)
        except Exception as error:  # noqa: BLE001 - raised again where smaller parts do not help
            return await self._apply_in_parts(batch, decoded, error)
        if result is None or result.held:
            return await self._apply_in_parts(batch, decoded, result)
        if self.refusals.users and not _WRITTEN.isdisjoint(result.outcomes.values()):
            self.refusals = Refusals()
        return Applied(decoded, result.outcomes | dict.fromkeys(screened.superseded, Outcome.SUPERSEDED))

    async def _apply_in_parts(
        self, batch: Batch, decoded: Sequence[Item], call_result: Exception | Result | None = None
    ) -> Applied:
        """Apply what is left of a batch in transactions of several statements. The one call ended in `call_result`."""
        if self._work is None or self._work.batch is not batch:
            self._work = BatchWork(batch, dead_letters.claims(batch.records))
        work = self._work
        work.receive(decoded, self.refusals)
        if isinstance(call_result, Exception):
            await self._fall_back(call_result, work, list(work.items.values()), work.way)
        elif call_result is not None:
            self._settle_all_but_held(work, call_result)
        while work.items:
            part = work.next_part(PART)
            if self.leaves_held and work.set_aside and not part and not work.suspicious:
                break
            if work.set_aside and (not part or len(work.set_aside) >= MAX_SET_ASIDE):
                await self._try(work, work.first_held(), Way.WAITING)
            else:
                await self._try(work, part, work.way)
        self._work, self.refused_all = None, False
        return Applied(decoded, work.outcomes, work.letters, work.rest())

    def _settle_all_but_held(self, work: BatchWork, result: Result) -> None:
        """Record what the one call has committed: everything but the held pairs."""
        stay = {work.partition_of(event.index) for event in result.held}
        work.settle(result.outcomes, (), {tp: at for tp, at in work.batch.positions.items() if tp not in stay})
        work.put_aside(result.held)
        if not _WRITTEN.isdisjoint(result.outcomes.values()):
            work.counted.accepted()
            self.refusals = work.counted.copy()

    async def _try(self, work: BatchWork, part: Sequence[Item], way: Way) -> None:
        try:
            await self._transaction(work, part, way)
        except RefusedAll:
            self.refused_all = True
            raise
        except Exception as error:  # noqa: BLE001 - as in `apply`
            await self._fall_back(error, work, part, way)

    async def _fall_back(self, error: Exception, work: BatchWork, part: Sequence[Item], way: Way) -> None:
        """Prepare the next part after a failure: fewer pairs, a new decision, or record by record.

        Raises:
            Exception: the error is neither a record's own fault, nor a conflict, nor a lock to wait for later.
        """
        fault = read_fault(error)
        if fault.waits and way is not Way.WAITING:
            work.halve(part)
        elif fault.kind is Kind.CONFLICT and work.conflicts < _MAX_CONFLICTS:
            work.conflicts += 1
            await self._reset_curriculum(fault)
        elif fault.kind in {Kind.CONFLICT, Kind.RECORD} and way is Way.WHOLE:
            work.way = Way.CAREFUL
        else:
            raise error

    async def _transaction(self, work: BatchWork, part: Sequence[Item], way: Way) -> None:
        """Apply a part in one transaction, with its dead letters, its replays and the positions that it reaches."""
        snapshot, records = await self._read_snapshot(), work.batch.records
        counted = work.counted.copy()
        async with self.engine.begin() as conn:
            discarded = await dead_letters.discarded(conn, records, work.claims_of(part))
            wanted = [item for item in part if item.index not in discarded]
            screened = screen(wanted, snapshot.curriculum, self.apply_since)
            call = Call(self.target, snapshot, work.batch, work.expected, screened.events, way, {})
            result = await call_within(conn, call)
            refused, suspicious = await self._judge(conn, work, part, result, counted)
            letters = [*screened.letters, *_letters_of_unknown_users(result), *refused]
            outcomes = {**result.outcomes, **dict.fromkeys([*screened.superseded, *discarded], Outcome.SUPERSEDED)}
            outcomes |= {letter.index: Outcome.DEAD_LETTERED for letter in letters}
            settled = {index: outcome for index, outcome in outcomes.items() if index not in suspicious}
            positions = work.next_positions(settled.keys())
            await dead_letters.store(conn, records, settled, letters, work.claims)
            await move_positions(conn, work.batch, positions)
        work.settle(settled, letters, positions)
        work.suspicious, work.counted = suspicious, counted
        work.put_aside(result.held)
        if not suspicious:
            self.refusals = counted.copy()

    async def _judge(
        self, conn: AsyncConnection, work: BatchWork, part: Sequence[Item], result: Result, counted: Refusals
    ) -> tuple[list[DeadLetter], dict[int, DeadLetter]]:
        """Return refusals that are the records' own fault, and those that may be the installation's (law 4).

        Refusals after the last accepted record may be the installation's. At the end of the batch they are the records'
        own.

        Raises:
            RefusedAll: the database refused the records of twenty users in a row.
            InstallationFault: the database refuses fewer records than in the last attempt.
        """
        refused, suspicious = dict(work.suspicious), dict(work.suspicious)
        found = result.refused
        stored = await dead_letters.already_stored(conn, work.batch.records, found, work.claims) if found else set()
        for index, outcome in result.outcomes.items():
            if index in found:
                suspicious[index] = DeadLetter(index, Reason.REFUSED_BY_DATABASE, found[index].message)
                if index not in stored:  # a record that is a dead letter already was counted before
                    counted.refused(work.user_of(index), found[index])
            elif outcome in _WRITTEN:
                counted.accepted()
                refused, suspicious = refused | suspicious, {}
        if not result.held and work.items.keys() <= suspicious.keys() | {item.index for item in part}:
            refused, suspicious = refused | suspicious, {}
        refused = {index: letter for index, letter in refused.items() if index not in suspicious}
        if refused and self.refused_all:
            self.refused_all = False
            raise InstallationFault("the database refuses fewer records than in the last attempt: the batch is retried")
        return list(refused.values()), suspicious

    async def _read_snapshot(self) -> CurriculumSnapshot:
        """Return the cached curriculum. One with faults is read again each time, so that a repair is noticed."""
        if self._snapshot is None or self._snapshot.curriculum.faults:
            async with self.engine.connect() as conn:
                self._snapshot = await read_snapshot(conn)
        return self._snapshot

    async def _reset_curriculum(self, fault: Fault) -> None:
        """Clear the cached curriculum, and look for a sequence that is behind: it makes every insert a conflict.

        Raises:
            InstallationFault: a sequence is behind. The text says how to repair it.
        """
        self._snapshot = None
        if fault.constraint:
            async with self.engine.connect() as conn:
                repair = await repair_of_sequence(conn, fault.constraint)
            if repair:
                raise InstallationFault(repair)


def _letters_of_unknown_users(result: Result) -> list[DeadLetter]:
    return [DeadLetter(e.index, Reason.UNKNOWN_USER, f"there is no user {e.user_id}") for e in result.unknown]
