"""Sync pairs in the caller's transaction: lock, read, decide, write. Syncs and heals both use this."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from events import Direction
from service.apply.rows import NO_DEFAULTS, Author, LevelWrite, Locked, Tables, lock_both, write_levels
from service.core.outcomes import Pair
from service.core.pair import PairAction, PairDecision, Sides, Why, decide_pair, nothing
from service.faults import DecideAgain
from service.levels import Curriculum, read_curriculum

Decide = Callable[[Sides, Direction, int], PairDecision]
"""A function of a pair's rows, a direction and the specialization's highest level. It returns how to end the drift."""
MAX_PAIRS = 1000
"""Maximum number of pairs in one transaction, because appliers wait for the rows that it locks."""


@dataclass(frozen=True, slots=True)
class PairResult:
    """The result of one pair: its rows as they were read under the lock, and what was decided and done."""

    before: Sides
    decision: PairDecision

    @property
    def after(self) -> Sides:
        """The rows after the decision."""
        done = self.decision
        if done.action is PairAction.NONE:
            return self.before
        levels = {"progress": self.before.progress_level, "license": self.before.license_level, done.target: done.new}
        return Sides(levels["progress"], levels["license"], progress_exists=True, license_exists=True)

    @property
    def agreed(self) -> int:
        """The level of both rows after the decision. It is only meaningful where they agree."""
        return self.after.progress_level or 0


async def sync_pairs(  # noqa: PLR0913 - each is an option in which syncs and heals differ
    conn: AsyncConnection,
    pairs: Sequence[Pair],
    direction: Direction,
    *,
    cause: str,
    advanced_by: int | None = None,
    only_if: Mapping[Pair, Sides] | None = None,
    decide: Decide = decide_pair,
    tables: Tables = NO_DEFAULTS,
    wait: bool = True,
) -> dict[Pair, PairResult]:
    """Bring at most `MAX_PAIRS` pairs into agreement. Their specializations are spelled as in `specializations`.

    `cause` (at most 500 characters) is the reason in the history and in the published events. The history names the
    user `advanced_by` if that user exists. `decide` decides the new levels of a pair. With `only_if`, a pair whose rows
    differ from the given ones is not changed (law 6).
    Without `wait`, pairs that another transaction has locked are missing from the result. With `wait`, pass one pair.

    Raises:
        DecideAgain: another transaction created a missing row, or changed the maxima. Roll back and call again.
    """
    if len(pairs) > MAX_PAIRS:
        raise ValueError(f"{len(pairs)} pairs in one transaction; {MAX_PAIRS} at most")
    locked = await lock_both(conn, sorted(set(pairs)), wait=wait)
    curriculum = await read_curriculum(conn)
    ours = [pair for pair in locked.progress if pair not in locked.held]
    results = {
        pair: _decide(pair, locked.sides(pair), direction, curriculum=curriculum, only_if=only_if, decide=decide)
        for pair in ours
    }
    writes = [_write(pair, result.decision, locked) for pair, result in results.items() if result.decision.target]
    fenced = {pair: result.agreed for pair, result in results.items() if result.decision.fences}
    await write_levels(conn, tables, writes, fenced, Author(cause, advanced_by), locked)
    if writes:
        await check_maxima(conn, curriculum)
    return results


async def check_maxima(conn: AsyncConnection, decided_with: Curriculum) -> None:
    """Read the maxima again after the writes, because no lock prevents other transactions from changing them.

    Raises:
        DecideAgain: they differ from those of the decision.
    """
    if (await read_curriculum(conn)).levels != decided_with.levels:
        raise DecideAgain("the specializations changed during the transaction")


def _decide(  # noqa: PLR0913 - the arguments of `sync_pairs`
    pair: Pair,
    sides: Sides,
    direction: Direction,
    *,
    curriculum: Curriculum,
    only_if: Mapping[Pair, Sides] | None,
    decide: Decide,
) -> PairResult:
    if only_if is not None and only_if.get(pair) != sides:
        return PairResult(sides, nothing(Why.CHANGED_MEANWHILE, "the levels changed after they were compared"))
    if fault := curriculum.faults.get(pair[1]):
        return PairResult(sides, nothing(Why.NO_MAXIMUM, fault))
    if pair[1] not in curriculum.levels:
        return PairResult(sides, nothing(Why.UNKNOWN_SPECIALIZATION, f"there is no specialization {pair[1]}"))
    return PairResult(sides, decide(sides, direction, curriculum.max_level(pair[1])))


def _write(pair: Pair, decision: PairDecision, locked: Locked) -> LevelWrite:
    assert decision.target is not None and decision.new is not None  # noqa: PT018, S101 - a write has both
    return LevelWrite(pair, decision.target, locked.row_id(pair, decision.target), decision.old, decision.new)
