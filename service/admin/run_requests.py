"""Asking for a reconcile run, and what is known of one that no worker has taken yet."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from events import Direction, ReconcileRequested
from service.admin.audit import audited
from service.admin.errors import Refused
from service.admin.identity import Identity
from service.admin.specializations import canonical
from service.outbox.put import put
from service.reconcile.read import read_run
from service.reconcile.sql import ADD_RUN
from service.reconcile.values import COUNTS, RunPhase, run_id_of

_SOURCE = "levelsync/api"
_ONE_AT_A_TIME = text("SELECT pg_advisory_xact_lock(hashtextextended(CAST(:id AS text), 0))")
_ASKED_FOR = text("""
    SELECT arguments, subject, at FROM levelsync.admin_actions
     WHERE action = 'request_run' AND outcome = 'done' AND at > clock_timestamp() - interval '1 day'
       AND arguments ->> 'run_id' = :id
     ORDER BY at LIMIT 1
""")
"""A request on its way through Kafka is no run yet; the audit log knows it."""


@dataclass(frozen=True, slots=True)
class RunRequest:
    """What a run does; a dry run of everything unless it says otherwise."""

    direction: Direction = "progress_to_license"
    dry_run: bool = True
    force: bool = False
    specialization: str | None = None
    user_id: int | None = None
    max_lowered: int | None = None
    """How many levels may fall before a real run stops; None: any number."""

    def as_arguments(self) -> dict[str, Any]:
        """As the audit log keeps it."""
        return {name: getattr(self, name) for name in self.__slots__}


async def request_run(engine: AsyncEngine, who: Identity, wanted: RunRequest, key: str | None = None) -> UUID:
    """Ask for a run through the outbox; returns its id. The same `key` again asks for nothing new.

    Raises:
        Forbidden, Busy.
        Refused: there is no such specialization, or `key` has asked for another run before.
    """
    run_id = uuid4() if key is None else run_id_of(key, _SOURCE)
    arguments = wanted.as_arguments() | {"run_id": str(run_id)}
    async with audited(engine, who, "request_run", **arguments) as entry, engine.begin() as conn:
        wanted = replace(wanted, specialization=await canonical(conn, wanted.specialization))
        entry.arguments |= wanted.as_arguments()
        await conn.execute(_ONE_AT_A_TIME, {"id": str(run_id)})
        before = await _asked_before(conn, run_id)
        if before is None:
            await put(conn, [_event(run_id, wanted, who)])
        elif before != wanted:
            raise Refused("This Idempotency-Key has asked for another run before.")
        await entry.done(conn, "asked for before" if before else "")
    return run_id


async def take(conn: AsyncConnection, run_id: UUID) -> None:
    """Make the run of a request that is on its way, before a worker does: its message then finds it made."""
    row = (await conn.execute(_ASKED_FOR, {"id": str(run_id)})).one_or_none()
    if row is not None:
        await conn.execute(ADD_RUN, _request_in(row).as_arguments() | {"id": run_id, "requested_by": row.subject})


async def on_its_way(conn: AsyncConnection, run_id: UUID) -> dict[str, Any] | None:
    """A request that no worker has taken yet, in the shape of a run; None where nobody asked for it here."""
    row = (await conn.execute(_ASKED_FOR, {"id": str(run_id)})).one_or_none()
    if row is None:
        return None
    wanted = _request_in(row)
    return {
        "run_id": str(run_id),
        "status": "planning",
        "dry_run": wanted.dry_run,
        "direction": wanted.direction,
        "specialization": wanted.specialization,
        "user_id": wanted.user_id,
        "requested_by": row.subject,
        "requested_at": row.at.isoformat(),
        "finished_at": None,
        "progress": {
            "ranges_done": 0,
            "ranges_total": 0,
            "phase": RunPhase.PLANNING,
            "seconds_left": None,
            "pairs_per_second": None,
        },
        "counts": dict.fromkeys(COUNTS, 0),
        "unconfirmed_by_kind": {},
        "would_stop": False,
    }


async def _asked_before(conn: AsyncConnection, run_id: UUID) -> RunRequest | None:
    """What the run of this id does, whether a worker has taken it or not."""
    run = await read_run(conn, run_id)
    if run is not None:
        return RunRequest(run.direction, run.dry_run, run.force, run.specialization, run.user_id, run.max_lowered)
    row = (await conn.execute(_ASKED_FOR, {"id": str(run_id)})).one_or_none()
    return None if row is None else _request_in(row)


def _request_in(row: Any) -> RunRequest:
    arguments = row.arguments if isinstance(row.arguments, dict) else json.loads(row.arguments)
    return RunRequest(**{name: arguments[name] for name in RunRequest.__slots__ if name in arguments})


def _event(run_id: UUID, wanted: RunRequest, who: Identity) -> ReconcileRequested:
    return ReconcileRequested(id=str(run_id), requested_by=who.subject, **wanted.as_arguments())
