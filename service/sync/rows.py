"""Both rows of pairs, locked and written: what every sync, heal and decision goes through (laws 2, 3 and 6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncConnection

from events import LevelSynced
from service.apply import targets
from service.apply.decide import Change, Decision, Rise, TargetRow
from service.apply.outcomes import Pair
from service.apply.targets import Target, license_target, progress_target
from service.outbox.put import put
from service.settings import Settings
from service.sync import sql
from service.sync.pair import Side, Sides


@dataclass(frozen=True, slots=True)
class Tables:
    """The two tables that a sync writes, with the application's own defaults for new rows (R9b)."""

    progress: Target
    license: Target


NO_DEFAULTS = Tables(progress_target({}), license_target({}))


def tables_of(settings: Settings) -> Tables:
    """The tables of an installation."""
    return Tables(progress_target(settings.progress_defaults), license_target(settings.license_defaults))


@dataclass(frozen=True, slots=True)
class Locked:
    """Rows under their locks."""

    progress: Mapping[Pair, TargetRow]
    licenses: Mapping[Pair, TargetRow]

    def sides(self, pair: Pair) -> Sides:
        """The pair's levels, as they stay until the transaction ends."""
        progress, license_ = self.progress.get(pair), self.licenses.get(pair)
        return Sides(
            progress_level=progress.level if progress else None,
            license_level=license_.level if license_ else None,
            progress_exists=progress is not None,
            license_exists=license_ is not None,
        )

    def row_id(self, pair: Pair, side: Side) -> int | None:
        """The row's id; None where it is to be made."""
        row = (self.progress if side == "progress" else self.licenses).get(pair)
        return row.row_id if row else None


@dataclass(frozen=True, slots=True)
class LevelWrite:
    """One row's new level; `row_id` is None for a row to be made, `old` also for one that held no level."""

    pair: Pair
    side: Side
    row_id: int | None
    old: int | None
    new: int


@dataclass(frozen=True, slots=True)
class Author:
    """Who decided: `cause` in words, and the user whom the history names, where it is one."""

    cause: str
    user_id: int | None = None


async def lock_both(conn: AsyncConnection, tables: Tables, pairs: Sequence[Pair]) -> Locked:
    """Lock both rows of every pair: all progress rows, then all licenses, each in key order, always (law 6)."""
    progress = await targets.lock_rows(conn, tables.progress, pairs)
    return Locked(progress, await targets.lock_rows(conn, tables.license, pairs))


async def write_levels(
    conn: AsyncConnection, tables: Tables, writes: Sequence[LevelWrite], fenced: Mapping[Pair, int], author: Author
) -> None:
    """Write levels decided under `lock_both`: rows, history, fences (pair to level) and what the outbox tells of it.

    Raises:
        DecideAgain: another transaction made one of the missing rows first; this one has to begin again.
    """
    if not writes:
        return
    decided_at: datetime = (await conn.execute(sql.CLOCK)).scalar_one()
    named = await targets.lock_users(conn, {author.user_id} if author.user_id is not None else ())
    for side, target in (("progress", tables.progress), ("license", tables.license)):
        decision = _as_decision([write for write in writes if write.side == side], decided_at, author.cause)
        await targets.write(conn, target, decision, advanced_by=next(iter(named), None))
    await _fence(conn, fenced, decided_at, author.cause)
    told = [write for write in writes if write.pair[0] > 0]  # the contract's user ids begin at 1
    await put(conn, [_event(write, decided_at, author.cause) for write in told])


def _as_decision(writes: Sequence[LevelWrite], at: datetime, cause: str) -> Decision:
    """The writes as the appliers have them: a license's step begins at 0 where there was no level."""
    return Decision(
        changes={write.pair: Change(write.pair, write.row_id, write.new, at, at) for write in writes},
        rises=[Rise(write.pair, write.old or 0, write.new, at, cause) for write in writes],
    )


async def _fence(conn: AsyncConnection, fenced: Mapping[Pair, int], decided_at: datetime, cause: str) -> None:
    if fenced:
        values = {
            "users": [user for user, _ in fenced],
            "specializations": [specialization for _, specialization in fenced],
            "levels": list(fenced.values()),
            "decided_at": decided_at,
            "decided_by": cause,
        }
        await conn.execute(sql.SET_FENCES, values)


def _event(write: LevelWrite, at: datetime, cause: str) -> LevelSynced:
    user, specialization = write.pair
    return LevelSynced(
        time=at,
        user_id=user,
        specialization=specialization,
        target=write.side,
        old_level=write.old if write.old is None or write.old >= 0 else None,  # the contract has no level below 0
        new_level=write.new,
        cause=cause,
    )
