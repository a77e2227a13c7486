"""Both rows of pairs, locked and written: what every sync, heal and decision goes through (laws 2, 3 and 6).

The rows are written by the stored functions that also write events (`service/store/levels_v1.sql`).
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
"""Lock both rows of pairs, and take the time of a decision once the locks are held (law 2)."""

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
"""Remember decisions that lowered a level: one row a pair, and its time never goes back (law 2)."""

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
"""Put a `LevelSynced` for each level that was written, as `events.LevelSynced.to_kafka` writes it: a thousand of them
cost Python 20 ms, and PostgreSQL less than it took to read them. The contract has no level below 0."""

_SIDES: tuple[Side, Side] = ("progress", "license")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_HELD, _ABSENT, _NULL = -1, 0, -(2**31)
"""How the stored functions say it in a row's id and level."""
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
    """The two tables that a sync writes, with the application's own defaults for new rows."""

    progress: Target
    license: Target


NO_DEFAULTS = Tables(progress_target({}), license_target({}))


def tables_of(settings: Settings) -> Tables:
    """Return the tables of an installation."""
    return Tables(progress_target(settings.progress_defaults), license_target(settings.license_defaults))


@dataclass(frozen=True, slots=True)
class Row:
    """A row under its lock: its id, None where there is no row, and its level, None also for NULL."""

    id: int | None
    level: int | None


@dataclass(frozen=True, slots=True)
class Locked:
    """Rows under their locks, and the time of a decision about them: after both locks (law 2)."""

    progress: Mapping[Pair, Row]
    licenses: Mapping[Pair, Row]
    held: frozenset[Pair]
    """Pairs of which somebody else holds a row: they were not waited for."""
    decided_at: datetime

    def sides(self, pair: Pair) -> Sides:
        """Return the pair's levels, as they stay until the transaction ends."""
        progress, license_ = self.progress[pair], self.licenses[pair]
        return Sides(
            progress_level=progress.level,
            license_level=license_.level,
            progress_exists=progress.id is not None,
            license_exists=license_.id is not None,
        )

    def row_id(self, pair: Pair, side: Side) -> int | None:
        """Return the row's id; None where it is to be created."""
        return (self.progress if side == "progress" else self.licenses)[pair].id


@dataclass(frozen=True, slots=True)
class LevelWrite:
    """One row's new level; `row_id` is None for a row to be created, `old` also for one that held no level."""

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


async def lock_both(conn: AsyncConnection, pairs: Sequence[Pair], *, wait: bool = True) -> Locked:
    """Lock both rows of every pair: all progress rows, then all licenses, each in key order, always (law 6).

    Without `wait`, pairs that somebody else holds are left out and named. With it there should be one pair: whoever
    waits for a lock holds no row of another pair.

    Raises:
        DecideAgain: a row was created while this one waited: roll back, and call again.
    """
    ordered = sorted(pairs)
    row = (await conn.execute(_LOCK_PAIRS, _keys(ordered) | {"wait": wait})).one()
    progress = dict(zip(ordered, map(_row, row.progress_ids or (), row.progress_levels or ()), strict=True))
    licenses = dict(zip(ordered, map(_row, row.license_ids or (), row.license_levels or ()), strict=True))
    held = frozenset(pair for pair in ordered if _HELD in {progress[pair].id, licenses[pair].id})
    if held and wait:
        raise DecideAgain("a row was created meanwhile")
    return Locked(progress, licenses, held, row.decided_at)


async def write_levels(  # noqa: PLR0913, PLR0917 - what is written, by whom, and under which locks
    conn: AsyncConnection,
    tables: Tables,
    writes: Sequence[LevelWrite],
    fenced: Mapping[Pair, int],
    author: Author,
    locked: Locked,
) -> None:
    """Write levels decided under `lock_both`: rows, history, fences (pair to level) and its events in the outbox.

    Raises:
        NotAsDecided: triggers of the application changed what was written, in either of the two rows.
        sqlalchemy.exc.DBAPIError: among others a row that is there meanwhile: roll back, and decide again.
    """
    named = await _existing(conn, author.user_id) if writes else None
    watched = False
    for side, target in (("progress", tables.progress), ("license", tables.license)):
        some = sorted((write for write in writes if write.side == side), key=lambda write: write.pair)
        if some:
            values = _values(some, target, locked.decided_at, author.cause, named)
            watched |= bool((await conn.execute(_WRITE[target.name], values)).scalar_one())
    if watched:
        await _check_both(conn, writes, locked)
    await _fence(conn, fenced, locked.decided_at, author.cause)
    await _publish(conn, writes, locked.decided_at, author.cause)


def _values(
    writes: Sequence[LevelWrite], target: Target, at: datetime, cause: str, named: int | None
) -> dict[str, Any]:
    """Return the arrays of one table's writes: a license's step begins at 0 where there was no level."""
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
    """Read both rows back, because a trigger on one table may have written the other."""
    pairs = sorted({write.pair for write in writes})
    expected = {(pair, side): locked.sides(pair).level(side) for pair in pairs for side in _SIDES}
    expected |= {(write.pair, write.side): write.new for write in writes}
    now = await lock_both(conn, pairs)
    for (pair, side), level in expected.items():
        found = now.sides(pair).level(side)
        if found != level:
            raise NotAsDecided(
                f"the {side} of user {pair[0]} in {pair[1]} holds {found}, not {level}, after the write: a trigger of "
                "the application changed it"
            )


async def _existing(conn: AsyncConnection, user_id: int | None) -> int | None:
    """Return the author's id where that user exists, and keep the row until the transaction ends."""
    if user_id is None:
        return None
    found: int | None = (await conn.execute(_LOCK_USER, {"user": user_id})).scalar_one_or_none()
    return found


def _keys(pairs: Sequence[Pair]) -> dict[str, list[Any]]:
    names = sorted({name for _, name in pairs})
    numbers = {name: number for number, name in enumerate(names, 1)}
    return {"users": [user for user, _ in pairs], "specs": [numbers[name] for _, name in pairs], "names": names}


def _row(row_id: int, level: int) -> Row:
    return Row(row_id or None, None if level == _NULL else level)


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
    """Put a `LevelSynced` for each write into the outbox; the contract's user ids begin at 1."""
    told = [write for write in writes if write.pair[0] > 0]
    if not told:
        return
    values = _keys([write.pair for write in told]) | {
        "topic": LEVEL_SYNCED_TOPIC,
        "type": LEVEL_SYNCED_TYPE,
        "source": DEFAULT_SOURCE,
        "time": write_time(at),
        "cause": cause,
        "targets": [write.side for write in told],
        "olds": [write.old for write in told],
        "news": [write.new for write in told],
    }
    await conn.execute(_PUT_LEVELS_SYNCED, values)
    await conn.execute(NOTIFY)
