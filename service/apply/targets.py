"""The two targets of events: licenses (of ProgressLeveledUp) and progress (of LicenseAdvanced).

The only code that writes a level, for events as for syncs and heals. Each call runs inside the caller's transaction.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import TextClause, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.apply import sql
from service.apply.decide import Change, Decision, Found, Rise, TargetRow
from service.apply.outcomes import LevelEvent, Pair
from service.database.faults import DecideAgain

MANY_ROWS = 100
"""Rows from which planning the look-ups of their foreign keys takes longer than asking for one plan."""


@dataclass(frozen=True, slots=True)
class Target:
    """One of the two tables: its statements, the application's own defaults, and whether it has a history."""

    lock: TextClause
    raise_rows: TextClause
    create_rows: TextClause
    defaults: str
    """JSON object for the columns that only the application can fill (R9b)."""
    keeps_history: bool


def license_target(defaults: Mapping[str, Any]) -> Target:
    """`user_licenses`, whose rises are kept in `license_progressions`."""
    create = sql.create_licenses(defaults)
    return Target(sql.LOCK_LICENSES, sql.RAISE_LICENSES, create, json.dumps(defaults), keeps_history=True)


def progress_target(defaults: Mapping[str, Any]) -> Target:
    """`specialization_progress`, which has no history."""
    create = sql.create_progress(defaults)
    return Target(sql.LOCK_PROGRESS, sql.RAISE_PROGRESS, create, json.dumps(defaults), keeps_history=False)


async def check_at_once(conn: AsyncConnection) -> None:
    """Have deferred constraints and triggers speak at each write: at the commit no row can be told from another."""
    await conn.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))


async def lock_and_find(conn: AsyncConnection, target: Target, events: Sequence[LevelEvent]) -> Found:
    """Lock the events' target rows in key order, then read fences and users in later statements (laws 1, 2, 6)."""
    pairs = sorted({(event.user_id, event.specialization) for event in events})
    rows = await lock_rows(conn, target, pairs)
    fences = {(f.user_id, f.specialization): f.decided_at for f in await conn.execute(sql.READ_FENCES, _keys(pairs))}
    users = await lock_users(conn, {user for user, spec in pairs if (user, spec) not in rows})
    return Found(rows, fences, users)


async def lock_rows(conn: AsyncConnection, target: Target, pairs: Sequence[Pair]) -> dict[Pair, TargetRow]:
    """Lock the target rows of pairs in key order, and read them as they are under the lock."""
    return _rows(await conn.execute(target.lock, _keys(pairs)))


async def lock_users(conn: AsyncConnection, users: Collection[int]) -> set[int]:
    """Tell which users exist, and keep them until the transaction ends."""
    if not users:
        return set()
    return set((await conn.execute(sql.LOCK_USERS, {"users": sorted(users)})).scalars())


async def write(conn: AsyncConnection, target: Target, decision: Decision, advanced_by: int | None = None) -> None:
    """Write a decision made under the locks of `lock_rows`; `advanced_by` is the user whom the history names.

    Raises:
        DecideAgain: another transaction made one of the missing rows first.
    """
    if len(decision.changes) + len(decision.rises) > MANY_ROWS:
        await conn.execute(sql.KEEP_PLANS)
    changes = sorted(decision.changes.values(), key=lambda change: change.pair)
    ids = {change.pair: change.row_id for change in changes if change.row_id is not None}
    await _raise_existing(conn, target, [change for change in changes if change.row_id is not None])
    ids |= await _create_missing(conn, target, [change for change in changes if change.row_id is None])
    if target.keeps_history:
        await _add_history(conn, decision.rises, ids, advanced_by)


async def _add_history(
    conn: AsyncConnection, rises: Sequence[Rise], ids: Mapping[Pair, int], advanced_by: int | None
) -> None:
    """One `license_progressions` row for each step; `ids` are the licenses' ids."""
    if not rises:
        return
    values: dict[str, Any] = {
        "ids": [ids[rise.pair] for rise in rises],
        "froms": [rise.from_level for rise in rises],
        "tos": [rise.to_level for rise in rises],
        "reasons": [rise.origin for rise in rises],
        "times": [rise.occurred_at for rise in rises],
    }
    if advanced_by is None:
        await conn.execute(sql.ADD_HISTORY, values)
    else:
        await conn.execute(sql.ADD_HISTORY_BY, values | {"advanced_by": advanced_by})


def _keys(pairs: Sequence[Pair]) -> dict[str, list[Any]]:
    return {"users": [user for user, _ in pairs], "specializations": [spec for _, spec in pairs]}


def _rows(found: Iterable[Any]) -> dict[Pair, TargetRow]:
    """The row of each pair. Where two differ only in the case of their name, the exactly named one is the pair's."""
    rows: dict[Pair, TargetRow] = {}
    exact: set[Pair] = set()
    for row_id, user_id, specialization, level, is_exact in found:
        pair = (user_id, specialization)
        if pair not in exact:
            rows[pair] = TargetRow(row_id, level)
        if is_exact:
            exact.add(pair)
    return rows


async def _raise_existing(conn: AsyncConnection, target: Target, changes: Sequence[Change]) -> None:
    if changes:
        await conn.execute(
            target.raise_rows,
            {
                "ids": [change.row_id for change in changes],
                "levels": [change.level for change in changes],
                "times": [change.advanced_at for change in changes],
            },
        )


async def _create_missing(conn: AsyncConnection, target: Target, changes: Sequence[Change]) -> dict[Pair, int]:
    if not changes:
        return {}
    values: dict[str, Any] = _keys([change.pair for change in changes]) | {
        "levels": [change.level for change in changes],
        "created": [change.created_at for change in changes],
        "advanced": [change.advanced_at for change in changes],
    }
    if ":defaults" in target.create_rows.text:
        values["defaults"] = target.defaults
    found = await conn.execute(target.create_rows, values)
    made = {(user_id, specialization): row_id for row_id, user_id, specialization in found}
    if len(made) < len(changes):
        raise DecideAgain(f"{len(changes) - len(made)} rows were made by somebody else meanwhile")
    return made
