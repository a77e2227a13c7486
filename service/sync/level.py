"""Set one pair to a given level. Also the statements and the refusals of syncs."""

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
    COUNTED_WITH_LICENSE,
    OF_ONE_LICENSE,
    OF_ONE_PROGRESS,
    PROGRESS_OF_THE_NAME,
    compared,
)

USER_EXISTS = text("SELECT EXISTS (SELECT FROM users WHERE id = CAST(:user AS bigint))")

RENAME_LICENSE = text("""
    UPDATE user_licenses SET specialization_type = :specialization, updated_at = clock_timestamp()
     WHERE id = :id AND specialization_type <> :specialization
 RETURNING id
""")
"""Correct the spelling of a license's specialization to that in `specializations`."""

OTHER_LICENSES = text(f"""
    SELECT id, specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
       AND id <> :id
     ORDER BY id
""")
"""Read the other licenses of a pair, whose specializations differ in case only."""

LICENSES_OF_PAIR = text(f"""
    SELECT specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
     ORDER BY id
""")
"""Read every spelling under which a pair has a license."""

NEXT_WINDOW = text("""
    SELECT coalesce(
        (SELECT student_id FROM specialization_progress WHERE student_id >= CAST(:from_user AS bigint)
          ORDER BY student_id OFFSET :rows LIMIT 1),
        (SELECT user_id FROM user_licenses WHERE user_id >= CAST(:from_user AS bigint)
          ORDER BY user_id OFFSET :rows LIMIT 1))
""")
"""Find the user at which a window of `rows` rows of progress ends, or of licenses if there is less progress. The result
is NULL if there are fewer of both. Looking at both tables each time would double the cost of a window."""


def issues(*, of_one_specialization: bool) -> TextClause:
    """Return the statement that compares the tables as they are now, and returns what differs, with law 8's kinds."""
    progress, licenses = (OF_ONE_PROGRESS, OF_ONE_LICENSE) if of_one_specialization else ("true", "true")
    return text(f"""
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d LEFT JOIN users u ON u.id = d.user_id
         WHERE d.kind <> '{COUNTED_WITH_LICENSE}'
         ORDER BY d.user_id, d.specialization""")


def issues_of_window(*, of_one_specialization: bool) -> TextClause:
    """Return the statement that compares the users of one window, after a pair.

    It is materialized, because with the limit PostgreSQL would look up every row's specialization one by one, and a
    window without issues took twice as long.
    """
    progress = "student_id >= CAST(:from_user AS bigint) AND student_id <= CAST(:upto_user AS bigint)"
    licenses = "user_id >= CAST(:from_user AS bigint) AND user_id <= CAST(:upto_user AS bigint)"
    if of_one_specialization:
        progress, licenses = f"{progress} AND {OF_ONE_PROGRESS}", f"{licenses} AND {OF_ONE_LICENSE}"
    return text(f"""
        WITH differing AS MATERIALIZED (
            SELECT * FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d
             WHERE d.kind <> '{COUNTED_WITH_LICENSE}'
               AND (d.user_id, d.specialization) > (CAST(:after_user AS bigint), :after_specialization))
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM (SELECT * FROM differing ORDER BY user_id, specialization LIMIT :limit) d
          LEFT JOIN users u ON u.id = d.user_id
         ORDER BY d.user_id, d.specialization""")


class SyncRefused(Exception):  # noqa: N818 - an answer, not a defect
    """A sync that cannot be done as it was requested. The text gives the reason."""


class UnknownSpecialization(SyncRefused):
    """The table `specializations` does not contain the name."""


class UnknownUser(SyncRefused):
    """The table `users` does not contain the id."""


class LevelOutOfRange(SyncRefused):
    """The specialization does not have the requested level."""


class UnknownDirection(SyncRefused):
    """The direction is not one of the three that exist."""


_SIDES: tuple[Side, Side] = ("progress", "license")


@dataclass(frozen=True, slots=True)
class LevelDecided:
    """The pair as it was under the lock, what was written, and what was found among the licenses."""

    before: Sides
    writes: tuple[LevelWrite, ...]
    renamed: bool
    """Whether the spelling of the license's specialization was corrected."""
    left_alone: tuple[str, ...]
    """The other licenses of the pair, spelled in another case, which were not changed."""


async def decide_level(conn: AsyncConnection, tables: Tables, pair: Pair, level: int, author: Author) -> LevelDecided:
    """Set both rows of a pair to this level, and create missing rows. The specialization is spelled as in the database.

    Events from before this decision are superseded, because it always sets a fence, also when both rows rise or already
    have the level. The spelling of the license is corrected. If the pair has several licenses, the others are left as
    they are.

    Raises:
        LevelOutOfRange: the specialization does not have this level.
        DecideAgain: another transaction created a missing row first. Roll back and call again.
    """
    locked = await lock_both(conn, [pair])
    curriculum = await read_curriculum(conn)
    maximum = curriculum.max_level(pair[1])
    if not 1 <= level <= maximum:
        raise LevelOutOfRange(f"level {level} is outside 1 to {maximum}, the levels of {pair[1]}")
    before = locked.sides(pair)
    renamed, left_alone = await _correct_spelling(conn, locked, pair)
    writes = [_level_write(pair, side, level, locked) for side in _SIDES if _differs(before, side, level)]
    await write_levels(conn, tables, writes, {pair: level}, author, locked)
    await check_maxima(conn, curriculum)
    return LevelDecided(before, tuple(writes), renamed, left_alone)


async def _correct_spelling(conn: AsyncConnection, locked: Locked, pair: Pair) -> tuple[bool, tuple[str, ...]]:
    """Correct the spelling of the pair's license, and find its other licenses."""
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
