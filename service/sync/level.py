"""Decide one pair at a given level, and what syncs refuse."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply.rows import Author, LevelWrite, Locked, Tables, lock_both, write_levels
from service.apply.write import check_maxima
from service.core.names import folded
from service.core.outcomes import Pair
from service.core.pair import Side, Sides
from service.levels import read_curriculum
from service.store.comparison import (
    OF_ONE_LICENSE,
    OF_ONE_PROGRESS,
    PROGRESS_OF_THE_NAME,
    TOLD_BY_ITS_LICENSE,
    compared,
)

USER_EXISTS = text("SELECT EXISTS (SELECT FROM users WHERE id = CAST(:user AS bigint))")

RENAME_LICENSE = text("""
    UPDATE user_licenses SET specialization_type = :specialization, updated_at = clock_timestamp()
     WHERE id = :id AND specialization_type <> :specialization
 RETURNING id
""")
"""Write a license's specialization as `specializations` has it."""

OTHER_LICENSES = text(f"""
    SELECT id, specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
       AND id <> :id
     ORDER BY id
""")
"""Licenses of the same pair beside the one that counts, which differ in case only."""

LICENSES_OF_PAIR = text(f"""
    SELECT specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
     ORDER BY id
""")
"""Every spelling under which a pair has a license."""

NEXT_WINDOW = text("""
    SELECT coalesce(
        (SELECT student_id FROM specialization_progress WHERE student_id >= CAST(:from_user AS bigint)
          ORDER BY student_id OFFSET :rows LIMIT 1),
        (SELECT user_id FROM user_licenses WHERE user_id >= CAST(:from_user AS bigint)
          ORDER BY user_id OFFSET :rows LIMIT 1))
""")
"""The user at which a window of so many rows of progress ends, or of licenses where progress ends before that; NULL
where both do. Counting both tables every time would cost as much again as comparing them."""


def issues(*, of_one_specialization: bool) -> TextClause:
    """Compare the tables as they are now; the kinds are law 8's. Only what differs leaves PostgreSQL."""
    progress, licenses = (OF_ONE_PROGRESS, OF_ONE_LICENSE) if of_one_specialization else ("true", "true")
    return text(f"""
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d LEFT JOIN users u ON u.id = d.user_id
         WHERE d.kind <> '{TOLD_BY_ITS_LICENSE}'
         ORDER BY d.user_id, d.specialization""")


def issues_of_window(*, of_one_specialization: bool) -> TextClause:
    """Compare the users of one window, behind a pair: what a page costs does not depend on where it begins.

    Materialized, so that the limit does not make PostgreSQL look up every row's specialization one by one: with it a
    window that holds no issue took twice as long.
    """
    progress = "student_id >= CAST(:from_user AS bigint) AND student_id <= CAST(:upto_user AS bigint)"
    licenses = "user_id >= CAST(:from_user AS bigint) AND user_id <= CAST(:upto_user AS bigint)"
    if of_one_specialization:
        progress, licenses = f"{progress} AND {OF_ONE_PROGRESS}", f"{licenses} AND {OF_ONE_LICENSE}"
    return text(f"""
        WITH differing AS MATERIALIZED (
            SELECT * FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d
             WHERE d.kind <> '{TOLD_BY_ITS_LICENSE}'
               AND (d.user_id, d.specialization) > (CAST(:after_user AS bigint), :after_specialization))
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM (SELECT * FROM differing ORDER BY user_id, specialization LIMIT :limit) d
          LEFT JOIN users u ON u.id = d.user_id
         ORDER BY d.user_id, d.specialization""")


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
    renamed = (await conn.execute(RENAME_LICENSE, which)).first() is not None
    others = await conn.execute(OTHER_LICENSES, which | {"user": user})
    return renamed, tuple(f"license {row.id} ({row.specialization_type})" for row in others)


def _differs(before: Sides, side: Side, level: int) -> bool:
    return not before.exists(side) or before.level(side) != level


def _level_write(pair: Pair, side: Side, level: int, locked: Locked) -> LevelWrite:
    return LevelWrite(pair, side, locked.row_id(pair, side), locked.sides(pair).level(side), level)
