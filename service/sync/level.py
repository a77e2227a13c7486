"""Decide one pair at a given level, and what syncs refuse."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply.rows import Author, LevelWrite, Locked, Tables, lock_both, write_levels
from service.apply.write import check_maxima
from service.core.outcomes import Pair
from service.core.pair import Side, Sides
from service.levels import read_curriculum
from service.sync import sql


class SyncRefused(Exception):  # noqa: N818 - an answer, not a defect
    """A sync that makes no sense as it was asked for. Its text says why."""


class UnknownSpecialization(SyncRefused):
    """`specializations` has no such row."""


class UnknownUser(SyncRefused):
    """`users` has no such row."""


class LevelOutOfRange(SyncRefused):
    """The level to be written is none of the specialization's."""


class UnknownDirection(SyncRefused):
    """There are three directions."""


_SIDES: tuple[Side, Side] = ("progress", "license")


@dataclass(frozen=True, slots=True)
class LevelDecided:
    """What was found under the lock, what was written, and what somebody should know of the licenses."""

    before: Sides
    writes: tuple[LevelWrite, ...]
    renamed: bool
    """The license's specialization was written in another case."""
    left_alone: tuple[str, ...]
    """Licenses of the same pair in another case, beside the one that was written."""


async def decide_level(conn: AsyncConnection, tables: Tables, pair: Pair, level: int, author: Author) -> LevelDecided:
    """Give both rows of a pair this level; make what is missing. The specialization is one of the database's.

    What was published before this decision is over: a fence is set, also where both rows rise or hold the level. A
    license written in another case gets the specialization's own name, unless there is one already: then the other one
    is left as it is.

    Raises:
        LevelOutOfRange: the specialization has no such level.
        DecideAgain: another transaction made a missing row first: roll back, and call again.
    """
    locked = await lock_both(conn, [pair])
    curriculum = await read_curriculum(conn)
    maximum = curriculum.max_level(pair[1])
    if not 1 <= level <= maximum:
        raise LevelOutOfRange(f"level {level} is outside 1 to {maximum}, the levels of {pair[1]}")
    before = locked.sides(pair)
    renamed, left_alone = await _set_right(conn, locked, pair)
    writes = [_level_write(pair, side, level, locked) for side in _SIDES if _differs(before, side, level)]
    await write_levels(conn, tables, writes, {pair: level}, author, locked)
    await check_maxima(conn, curriculum)
    return LevelDecided(before, tuple(writes), renamed, left_alone)


async def _set_right(conn: AsyncConnection, locked: Locked, pair: Pair) -> tuple[bool, tuple[str, ...]]:
    """Name the pair's license as the specialization is, and find those beside it."""
    license_id = locked.row_id(pair, "license")
    if license_id is None:
        return False, ()
    user, specialization = pair
    which = {"id": license_id, "specialization": specialization}
    renamed = (await conn.execute(sql.RENAME_LICENSE, which)).first() is not None
    others = await conn.execute(sql.OTHER_LICENSES, which | {"user": user})
    return renamed, tuple(f"license {row.id} ({row.specialization_type})" for row in others)


def _differs(before: Sides, side: Side, level: int) -> bool:
    return not before.exists(side) or before.level(side) != level


def _level_write(pair: Pair, side: Side, level: int, locked: Locked) -> LevelWrite:
    return LevelWrite(pair, side, locked.row_id(pair, side), locked.sides(pair).level(side), level)
