"""One batch, one transaction: positions checked and moved, effects, history, dead letters (law 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from aiokafka import TopicPartition
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Reason
from service.apply import dead_letters, positions, replayed, targets
from service.apply.decide import Decision, decide
from service.apply.outcomes import DeadLetter, LevelEvent, Outcome
from service.apply.positions import Positions
from service.apply.refusals import Refusals, RefusedAll
from service.apply.screen import screen
from service.apply.targets import Target
from service.database.faults import DecideAgain, Fault, InstallationFault, Kind, read_fault
from service.levels import read_curriculum

_CONFLICTS_IN_A_ROW = 10
_KEPT_OUT = Fault(
    Kind.RECORD,
    "",
    "",
    "the table takes no such row and gives no reason: a trigger or rule of the application keeps it out",
)
"""A row that nobody else has made and that cannot be made: with every try, a conflict finds what it met."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What one poll delivered: the records, what the position rows must say, and where they are to go."""

    records: dead_letters.Records
    expected: Positions
    positions: Positions
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic that the records were read from; '' or absent where the broker gives none. The position rows
    must hold the same ids."""
    leader_epochs: Mapping[TopicPartition, int] = field(default_factory=dict)
    """The epoch of the last record before each of `positions`; stored with the position, -1 where it is not known."""


@dataclass(slots=True)
class Applied:
    """What a committed batch did: each event's outcome by index, and the dead letters."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    letters: list[DeadLetter] = field(default_factory=list)


@dataclass(slots=True)
class Applier:
    """Applies batches to one target. Made once for each consumer; remembers refusals in a row."""

    engine: AsyncEngine
    target: Target
    apply_since: datetime | None = None
    refusals: Refusals = field(default_factory=Refusals)
    refused_all: bool = False
    """Whether the database refused everybody when this batch was tried last."""

    async def apply(self, batch: Batch, decoded: Sequence[LevelEvent | DeadLetter]) -> Applied:
        """Apply one batch in one transaction; nothing of it stands when this raises.

        Raises:
            Evicted, DatabaseWentBack, TopicRecreated: the position rows are not where this consumer left them.
            Exception: whatever the database raised; the caller decides by `read_fault` and tries again.
        """
        try:
            return await self._transaction(batch, decoded, careful=False)
        except (DBAPIError, DecideAgain) as error:
            if read_fault(error).kind not in {Kind.RECORD, Kind.CONFLICT}:
                raise
        try:
            return await self._transaction(batch, decoded, careful=True)
        except RefusedAll:
            self.refused_all = True
            raise

    async def _transaction(self, batch: Batch, decoded: Sequence[LevelEvent | DeadLetter], *, careful: bool) -> Applied:
        """`careful`: with savepoints, and with every constraint checked at once. A good batch does without both."""
        refusals = self.refusals.copy()
        async with self.engine.begin() as conn:
            if careful:
                await targets.check_at_once(conn)
            await positions.check_and_move(conn, batch)
            applied = await self._effects(conn, batch, decoded, refusals, careful=careful)
            self._check_repaired(applied)
            await dead_letters.keep(conn, batch.records, applied.letters)
        self.refusals, self.refused_all = refusals, False
        return applied

    def _check_repaired(self, applied: Applied) -> None:
        """Where a fault is repaired in the middle of an attempt, its first refusals do not count."""
        if self.refused_all and any(letter.reason is Reason.REFUSED_BY_DATABASE for letter in applied.letters):
            self.refused_all = False
            raise InstallationFault("the database refuses less than a moment ago: decided again")

    async def _effects(
        self,
        conn: AsyncConnection,
        batch: Batch,
        decoded: Sequence[LevelEvent | DeadLetter],
        refusals: Refusals,
        *,
        careful: bool,
    ) -> Applied:
        curriculum = await read_curriculum(conn)
        discarded = await replayed.discarded(conn, batch.records)
        wanted = [item for item in decoded if item.index not in discarded] if discarded else decoded
        screened = screen(wanted, curriculum, self.apply_since)
        applied = Applied(dict.fromkeys([*screened.superseded, *discarded], Outcome.SUPERSEDED), screened.letters)
        if careful:
            await self._split(conn, batch, screened.events, refusals, applied)
        elif screened.events:
            _add(await self._decide_and_write(conn, screened.events), refusals, applied)
        applied.outcomes |= {letter.index: Outcome.DEAD_LETTERED for letter in applied.letters}
        return applied

    async def _split(
        self, conn: AsyncConnection, batch: Batch, events: Sequence[LevelEvent], refusals: Refusals, applied: Applied
    ) -> None:
        """Apply events; where one is refused, halve until it stands alone and becomes a dead letter (law 4)."""
        if not events:
            return
        try:
            await self._segment(conn, events, refusals, applied)
        except (DBAPIError, DecideAgain) as error:
            fault = _KEPT_OUT if isinstance(error, DecideAgain) else read_fault(error)
            if fault.kind is not Kind.RECORD:
                raise
            if len(events) == 1:
                if not await dead_letters.is_kept(conn, batch.records[events[0].index]):  # a replay refuses nothing new
                    refusals.refused(events[0].user_id, fault)
                letter = DeadLetter(events[0].index, Reason.REFUSED_BY_DATABASE, fault.message)
                applied.letters.append(letter)
                return
            middle = len(events) // 2
            await self._split(conn, batch, events[:middle], refusals, applied)
            await self._split(conn, batch, events[middle:], refusals, applied)

    async def _segment(
        self, conn: AsyncConnection, events: Sequence[LevelEvent], refusals: Refusals, applied: Applied
    ) -> None:
        """Decide and write in a savepoint; a conflict means: decide again, on what is there now.

        Raises:
            DecideAgain: ten conflicts in a row: there is nothing to find.
        """
        for tries_left in reversed(range(_CONFLICTS_IN_A_ROW)):
            try:
                async with conn.begin_nested():
                    decision = await self._decide_and_write(conn, events)
            except DecideAgain:
                if not tries_left:
                    raise
            else:
                break
        _add(decision, refusals, applied)

    async def _decide_and_write(self, conn: AsyncConnection, events: Sequence[LevelEvent]) -> Decision:
        """Lock, find, decide, write."""
        found = await targets.lock_and_find(conn, self.target, events)
        decision = decide(events, found)
        await targets.write(conn, self.target, decision)
        return decision


def _add(decision: Decision, refusals: Refusals, applied: Applied) -> None:
    if decision.changes:
        refusals.accepted()
    applied.outcomes |= decision.outcomes
    applied.letters += decision.letters
