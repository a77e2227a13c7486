"""Applies one batch: by one call of a stored function where all is well (law 3), in parts where it is not.

A batch goes on by smaller parts where the database refuses a record, and without the pairs that somebody else holds,
which come last and one by one. Each part is one transaction. What is committed is not decided again: the same batch,
applied again after a fault, continues.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Reason
from service.apply import dead_letters, replayed
from service.apply.call import Call, Result, call_alone, call_within, move_positions
from service.apply.outcomes import DeadLetter, Outcome
from service.apply.progress import MOST_SET_ASIDE, Batch, Item, Way, Work
from service.apply.refusals import Refusals, RefusedAll
from service.apply.screen import screen
from service.apply.targets import Target
from service.database.faults import Fault, InstallationFault, Kind, read_fault
from service.store.curriculum import Known, read_known
from service.store.sequences import behind

__all__ = ["Applied", "Applier", "Batch"]

PART = 100
"""Records of one transaction where each is tried by itself: bounds how long its locks are held."""
_CONFLICTS = 3
"""How often everything is decided again before records are tried one by one."""
_WRITTEN = frozenset({Outcome.APPLIED, Outcome.CREATED})


@dataclass(slots=True)
class Applied:
    """What a committed batch did: each event's outcome by index, and the dead letters."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True)
class Applier:
    """Applies batches to one target. One for each consumer; remembers refusals in a row."""

    engine: AsyncEngine
    target: Target
    apply_since: datetime | None = None
    refusals: Refusals = field(default_factory=Refusals)
    refused_all: bool = False
    """Whether the database refused everybody when this batch was tried last."""
    _known: Known | None = None
    _work: Work | None = None

    async def apply(self, batch: Batch, decoded: Sequence[Item]) -> Applied:
        """Apply one batch; where this raises, call it again with the same batch: it continues.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows are not where this consumer left them.
            Exception: whatever the database raised; the caller decides by `read_fault` and tries again.
        """
        if self._work is None or self._work.batch is not batch:
            self._work = Work(batch, replayed.claims(batch.records))
        work = self._work
        work.receive(decoded, self.refusals)
        while work.items:
            part = work.next_part(PART)
            if work.set_aside and (not part or len(work.set_aside) >= MOST_SET_ASIDE):
                await self._try(work, work.first_held(), Way.WAITING)
            else:
                await self._try(work, part, work.way)
        self._work, self.refused_all = None, False
        return Applied(work.outcomes, work.letters)

    async def _try(self, work: Work, part: Sequence[Item], way: Way) -> None:
        """Apply a part; where that fails for a reason of its own, make the next one smaller or more careful.

        Raises:
            Exception: the fault is neither a record's, nor a conflict, nor a lock that can be waited for later.
        """
        try:
            if way is not Way.QUICK or not await self._quick(work, part):
                await self._transaction(work, part, Way.WHOLE if way is Way.QUICK else way)
        except RefusedAll:
            self.refused_all = True
            raise
        except Exception as error:
            fault = read_fault(error)
            if fault.waits and way is not Way.WAITING:
                work.try_less(part)
            elif fault.kind is Kind.CONFLICT and work.conflicts < _CONFLICTS:
                work.conflicts += 1
                await self._look_again(fault)
            elif fault.kind in {Kind.CONFLICT, Kind.RECORD} and way in {Way.QUICK, Way.WHOLE}:
                work.way = Way.CAREFUL
            else:
                raise

    async def _quick(self, work: Work, part: Sequence[Item]) -> bool:
        """Apply everything by one call; False where dead letters are concerned."""
        known = await self._curriculum()
        screened = screen(part, known.curriculum, self.apply_since)
        positions = work.next_positions({item.index for item in part})
        work.way = Way.WHOLE
        if screened.letters or work.claims:
            return False
        result = await call_alone(self.engine, Call(self.target, known, work, screened.events, Way.QUICK, positions))
        if result.letters:
            return False
        stay = {work.partition_of(event.index) for event in result.held}
        outcomes = {**result.outcomes, **dict.fromkeys(screened.superseded, Outcome.SUPERSEDED)}
        work.settle(outcomes, (), {tp: at for tp, at in positions.items() if tp not in stay})
        work.hold(result.held)
        if not _WRITTEN.isdisjoint(outcomes.values()):
            work.counted.accepted()
            self.refusals = work.counted.copy()
        return True

    async def _transaction(self, work: Work, part: Sequence[Item], way: Way) -> None:
        """Apply a part together with its dead letters, its replays and the positions that it reaches."""
        known, records = await self._curriculum(), work.batch.records
        counted = work.counted.copy()
        async with self.engine.begin() as conn:
            discarded = await replayed.discarded(conn, records, work.claims_of(part))
            wanted = [item for item in part if item.index not in discarded]
            screened = screen(wanted, known.curriculum, self.apply_since)
            result = await call_within(conn, Call(self.target, known, work, screened.events, way, {}))
            refused, suspicious = await self._judge(conn, work, part, result, counted)
            letters = [*screened.letters, *_unknown(result), *refused]
            outcomes = {**result.outcomes, **dict.fromkeys([*screened.superseded, *discarded], Outcome.SUPERSEDED)}
            outcomes |= {letter.index: Outcome.DEAD_LETTERED for letter in letters}
            settled = {index: outcome for index, outcome in outcomes.items() if index not in suspicious}
            positions = work.next_positions(settled.keys())
            await dead_letters.keep(conn, records, settled, letters, work.claims)
            await move_positions(conn, work, positions)
        work.settle(settled, letters, positions)
        work.suspicious, work.counted = suspicious, counted
        work.hold(result.held)
        if not suspicious:
            self.refusals = counted.copy()

    async def _judge(
        self, conn: AsyncConnection, work: Work, part: Sequence[Item], result: Result, counted: Refusals
    ) -> tuple[list[DeadLetter], dict[int, DeadLetter]]:
        """Tell refusals that are the records' own from those that may be the installation's (law 4).

        The latter come after the last record that the database accepted; at the batch's end they are the records' own.

        Raises:
            RefusedAll: the refusals in a row are of twenty users.
            InstallationFault: the database refuses less than in the last attempt.
        """
        refused, suspicious = dict(work.suspicious), dict(work.suspicious)
        found = result.refused
        kept = await dead_letters.kept(conn, work.batch.records, found, work.claims) if found else set()
        for index, outcome in result.outcomes.items():
            if index in found:
                suspicious[index] = DeadLetter(index, Reason.REFUSED_BY_DATABASE, found[index].message)
                if index not in kept:  # a replay refuses nothing new
                    counted.refused(work.user_of(index), found[index])
            elif outcome in _WRITTEN:
                counted.accepted()
                refused, suspicious = refused | suspicious, {}
        if not result.held and work.items.keys() <= suspicious.keys() | {item.index for item in part}:
            refused, suspicious = refused | suspicious, {}
        refused = {index: letter for index, letter in refused.items() if index not in suspicious}
        if refused and self.refused_all:
            self.refused_all = False
            raise InstallationFault("the database refuses less than a moment ago: decided again")
        return list(refused.values()), suspicious

    async def _curriculum(self) -> Known:
        """Return what is known; a curriculum with faults is read again each time, so that a repair is noticed."""
        if self._known is None or self._known.curriculum.faults:
            async with self.engine.connect() as conn:
                self._known = await read_known(conn)
        return self._known

    async def _look_again(self, fault: Fault) -> None:
        """Forget what was known; name a sequence that is behind: it makes every insert a conflict.

        Raises:
            InstallationFault: it is the sequence.
        """
        self._known = None
        if fault.constraint:
            async with self.engine.connect() as conn:
                repair = await behind(conn, fault.constraint)
            if repair:
                raise InstallationFault(repair)


def _unknown(result: Result) -> list[DeadLetter]:
    return [DeadLetter(e.index, Reason.UNKNOWN_USER, f"there is no user {e.user_id}") for e in result.unknown]
