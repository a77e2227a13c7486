"""Lock and write both rows of pairs, for every sync, heal and decision (laws 2, 3 and 6).

The stored functions that write events write these rows too (`service/store/levels_v1.sql`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from events import LEVEL_SYNCED_TOPIC, LEVEL_SYNCED_TYPE
from events.attributes import DEFAULT_SOURCE
from events.writing import write_time
from service.apply.call import Target, license_target, progress_target
from service.core.outcomes import Pair
from service.core.pair import Side, Sides
from service.faults import DecideAgain, NotAsDecided
from service.outbox.put import NOTIFY
from service.settings import Settings

_LOCK_PAIRS = text("""
    SELECT *
      FROM levelsync.lock_pairs_v1(CAST(:users AS bigint[]), CAST(:specs AS int[]), CAST(:names AS text[]), :wait)
""")
"""Lock both rows of pairs, and read the time of the decision after that (law 2)."""

_LOCK_USER = text("SELECT id FROM users WHERE id = CAST(:user AS bigint) FOR KEY SHARE")

SET_FENCES = text("""
    INSERT INTO levelsync.fences AS f (user_id, specialization, decided_at, level, decided_by)
    SELECT v.user_id, v.specialization, :decided_at, v.level, :decided_by
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[]), CAST(:levels AS int[]))
           AS v (user_id, specialization, level)
     ORDER BY v.user_id, v.specialization
        ON CONFLICT (user_id, specialization) DO UPDATE
       SET decided_at = greatest(f.decided_at, excluded.decided_at), level = excluded.level,
           decided_by = excluded.decided_by
""")
"""Store decisions, one row for each pair. The time of a row never decreases (law 2)."""

_PUT_LEVELS_SYNCED = text("""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT :topic, convert_to(CAST(e.user_id AS text), 'UTF8'),
           convert_to(CAST(json_strip_nulls(json_build_object(
               'user_id', e.user_id, 'specialization', (CAST(:names AS text[]))[e.spec], 'target', e.target,
               'old_level', CASE WHEN e.old_level >= 0 THEN e.old_level END, 'new_level', e.new_level,
               'cause', CAST(:cause AS text))) AS text), 'UTF8'),
           jsonb_build_array(
               jsonb_build_array('ce_specversion', '1.0'), jsonb_build_array('ce_id', gen_random_uuid()),
               jsonb_build_array('ce_source', CAST(:source AS text)), jsonb_build_array('ce_type', CAST(:type AS text)),
               jsonb_build_array('ce_time', CAST(:time AS text)),
               jsonb_build_array('content-type', 'application/json'))
      FROM unnest(CAST(:users AS bigint[]), CAST(:specs AS int[]), CAST(:targets AS text[]), CAST(:olds AS int[]),
                  CAST(:news AS int[])) WITH ORDINALITY AS e (user_id, spec, target, old_level, new_level, number)
     ORDER BY e.number
""")
"""Put a `LevelSynced` into the outbox for each written level, as `events.LevelSynced.to_kafka` would.

Python needs 20 ms to build a thousand of them. PostgreSQL builds them in less time than it would need to read them.
An old level below 0 is left out, because the contract does not allow it.
"""

_SIDES: tuple[Side, Side] = ("progress", "license")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HELD, _ABSENT, _NULL = -1, 0, -(2**31)
"""How the stored functions encode a held row and a missing row in the id, and a level that is NULL in the level."""
_WRITE = {
    name: text(f"""
        SELECT levelsync.write_{name}_v1(
            CAST(:ids AS bigint[]), CAST(:users AS bigint[]), CAST(:specs AS int[]), CAST(:names AS text[]),
            CAST(:levels AS int[]), v.times, v.times, CAST(:defaults AS jsonb),
            v.places, CAST(:olds AS int[]), CAST(:levels AS int[]), v.times,
            array_fill(CAST(:cause AS text), ARRAY[v.count]), CAST(:advanced_by AS bigint))
          FROM (SELECT c.count, array_fill(CAST(:time AS bigint), ARRAY[c.count]) AS times,
                       ARRAY(SELECT generate_series(1, c.count)) AS places
                  FROM (SELECT cardinality(CAST(:ids AS bigint[])) AS count) c) v
    """)
    for name in ("progress", "license")
}


@dataclass(frozen=True, slots=True)
class Tables:
    """The two tables that a sync writes, with the application's defaults for new rows."""

    progress: Target
    license: Target


NO_DEFAULTS = Tables(progress_target({}), license_target({}))


def tables_of(settings: Settings) -> Tables:
    """Return both tables with the defaults of the settings."""
    return Tables(progress_target(settings.progress_defaults), license_target(settings.license_defaults))


@dataclass(frozen=True, slots=True)
class LockedRow:
    """A locked row. `id` is None when there is no row. `level` is None then, and when it is NULL."""

    id: int | None
    level: int | None


@dataclass(frozen=True, slots=True)
class Locked:
    """The locked rows of pairs, and the time of a decision about them, read after both locks (law 2)."""

    progress: Mapping[Pair, LockedRow]
    licenses: Mapping[Pair, LockedRow]
    held: frozenset[Pair]
    """Pairs that were skipped because another transaction has locked one of their rows."""
    decided_at: datetime

    def sides(self, pair: Pair) -> Sides:
        """Return the pair's levels, which cannot change until the transaction ends."""
        progress, license_ = self.progress[pair], self.licenses[pair]
        return Sides(
            progress_level=progress.level,
            license_level=license_.level,
            progress_exists=progress.id is not None,
            license_exists=license_.id is not None,
        )

    def row_id(self, pair: Pair, side: Side) -> int | None:
        """Return the row's id, or None for a row to create."""
        return (self.progress if side == "progress" else self.licenses)[pair].id


@dataclass(frozen=True, slots=True)
class LevelWrite:
    """One row's new level. `row_id` is None for a row to create. `old` is None when there was no row or no level."""

    pair: Pair
    side: Side
    row_id: int | None
    old: int | None
    new: int


@dataclass(frozen=True, slots=True)
class Author:
    """The author of a decision: `cause` in words, and the id of the user to name in the history, if it was a user."""

    cause: str
    user_id: int | None = None


async def lock_both(conn: AsyncConnection, pairs: Sequence[Pair], *, wait: bool = True) -> Locked:
    """Lock both rows of every pair: all progress rows, then all licenses, each in key order (law 6).

    Without `wait`, skip pairs of which another transaction has locked a row, and return them in `Locked.held`.
    With `wait`, pass one pair, because a transaction that waits for a lock must not lock a row of another pair.

    Raises:
        DecideAgain: another transaction created a row during the wait. Roll back and call again.
    """
    ordered = sorted(pairs)
    row = (await conn.execute(_LOCK_PAIRS, _keys(ordered) | {"wait": wait})).one()
    progress = dict(zip(ordered, map(_row, row.progress_ids or (), row.progress_levels or ()), strict=True))
    licenses = dict(zip(ordered, map(_row, row.license_ids or (), row.license_levels or ()), strict=True))
    held = frozenset(pair for pair in ordered if _HELD in {progress[pair].id, licenses[pair].id})
    if held and wait:
        raise DecideAgain("another transaction created a row during the wait for its lock")
    return Locked(progress, licenses, held, row.decided_at)


async def write_levels(  # noqa: PLR0913, PLR0917 - what is written, by whom, and under which locks
    conn: AsyncConnection,
    tables: Tables,
    writes: Sequence[LevelWrite],
    fenced: Mapping[Pair, int],
    author: Author,
    locked: Locked,
) -> None:
    """Write levels that were decided under `lock_both`: rows, history, fences and events for the outbox.

    `fenced` maps each pair that gets a fence to its level.

    Raises:
        NotAsDecided: a trigger of the application changed one of the two rows.
        sqlalchemy.exc.DBAPIError: among others, another transaction created the row. Roll back and decide again.
    """
    named = await _lock_author(conn, author.user_id) if writes else None
    watched = False
    for side, target in (("progress", tables.progress), ("license", tables.license)):
        ours = sorted((write for write in writes if write.side == side), key=lambda write: write.pair)
        if ours:
            values = _values(ours, target, locked.decided_at, author.cause, named)
            watched |= bool((await conn.execute(_WRITE[target.name], values)).scalar_one())
    if watched:
        await _check_both(conn, writes, locked)
    await _fence(conn, fenced, locked.decided_at, author.cause)
    await _publish(conn, writes, locked.decided_at, author.cause)


def _values(
    writes: Sequence[LevelWrite], target: Target, at: datetime, cause: str, named: int | None
) -> dict[str, Any]:
    """Return the arrays for one table's writes. The history of a license that had no level begins at 0."""
    since = at - _EPOCH
    microseconds = (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds
    return _keys([write.pair for write in writes]) | {
        "ids": [write.row_id or _ABSENT for write in writes],
        "levels": [write.new for write in writes],
        "olds": [write.old or 0 for write in writes],
        "time": microseconds,
        "cause": cause,
        "defaults": target.defaults,
        "advanced_by": named,
    }


async def _check_both(conn: AsyncConnection, writes: Sequence[LevelWrite], locked: Locked) -> None:
    """Read both rows again, because a trigger on one table may have written to the other."""
    pairs = sorted({write.pair for write in writes})
    expected = {(pair, side): locked.sides(pair).level(side) for pair in pairs for side in _SIDES}
    expected |= {(write.pair, write.side): write.new for write in writes}
    now = await lock_both(conn, pairs)
    for (pair, side), level in expected.items():
        found = now.sides(pair).level(side)
        if found != level:
            raise NotAsDecided(
                f"the {side} of user {pair[0]} in {pair[1]} is {found}, not {level}, after the write: a trigger of "
                "the application changed it"
            )


async def _lock_author(conn: AsyncConnection, user_id: int | None) -> int | None:
    """Return the author's id if that user exists, and lock the row against deletion until the transaction ends."""
    if user_id is None:
        return None
    found: int | None = (await conn.execute(_LOCK_USER, {"user": user_id})).scalar_one_or_none()
    return found


def _keys(pairs: Sequence[Pair]) -> dict[str, list[Any]]:
    names = sorted({name for _, name in pairs})
    numbers = {name: number for number, name in enumerate(names, 1)}
    return {"users": [user for user, _ in pairs], "specs": [numbers[name] for _, name in pairs], "names": names}


def _row(row_id: int, level: int) -> LockedRow:
    return LockedRow(row_id or None, None if level == _NULL else level)


async def _fence(conn: AsyncConnection, fenced: Mapping[Pair, int], decided_at: datetime, cause: str) -> None:
    if fenced:
        values = {
            "users": [user for user, _ in fenced],
            "specializations": [specialization for _, specialization in fenced],
            "levels": list(fenced.values()),
            "decided_at": decided_at,
            "decided_by": cause,
        }
        await conn.execute(SET_FENCES, values)


async def _publish(conn: AsyncConnection, writes: Sequence[LevelWrite], at: datetime, cause: str) -> None:
    """Put a `LevelSynced` into the outbox for each write. The contract has no user ids below 1."""
    published = [write for write in writes if write.pair[0] > 0]
    if not published:
        return
    values = _keys([write.pair for write in published]) | {
        "topic": LEVEL_SYNCED_TOPIC,
        "type": LEVEL_SYNCED_TYPE,
        "source": DEFAULT_SOURCE,
        "time": write_time(at),
        "cause": cause,
        "targets": [write.side for write in published],
        "olds": [write.old for write in published],
        "news": [write.new for write in published],
    }
    await conn.execute(_PUT_LEVELS_SYNCED, values)
    await conn.execute(NOTIFY)
