"""The audit log: who requested what, from where, and with which outcome."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.admin.database import busy_if_unavailable
from service.admin.identity import Action, AdminError, Busy, Forbidden, Identity, allow

log = structlog.get_logger(__name__)
ActionOutcome = Literal["done", "refused", "failed"]
_LONGEST = 500
_LONGEST_ARGUMENTS = 2000
"""The maximum number of characters of a refused request's fields that a row stores."""
_ADD = text("""
    INSERT INTO levelsync.admin_actions
           (subject, role, action, arguments, outcome, detail, request_id, client_address)
    VALUES (:subject, :role, :action, CAST(:arguments AS jsonb), :outcome, :detail, :request_id, :client_address)
""")


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody without a token: the user of a terminal (`shell`), or the publisher of a request (`event`)."""

    subject: str
    role: Literal["shell", "event"]


@dataclass(slots=True)
class Entry:
    """One row of the audit log, before it is stored."""

    who: Identity | Actor
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)
    stored: bool = False

    async def done(self, conn: AsyncConnection, detail: str = "") -> None:
        """Store the row with the outcome `done` in the transaction of the write that it describes."""
        await _add(conn, self, "done", detail)
        self.stored = True

    async def failed(self, engine: AsyncEngine, detail: str) -> None:
        """Store the row with the outcome `failed`: the write was tried and rolled back."""
        await _store(engine, self, "failed", detail)
        self.stored = True


@asynccontextmanager
async def audited(engine: AsyncEngine, who: Identity, action: Action, **arguments: Any) -> AsyncIterator[Entry]:
    """Check the right, and store a row with the outcome of the block: `done`, `refused` or `failed`.

    Raises:
        Forbidden: the role does not allow the action.
        Busy: the database cannot answer.
    """
    entry = Entry(who, action, arguments)
    try:
        allow(who, action)
        with busy_if_unavailable():
            yield entry
            if not entry.stored:
                await _store(engine, entry, "done")
    except Exception as error:
        answered = isinstance(error, AdminError) and not isinstance(error, Busy)
        if isinstance(error, AdminError):
            error.is_audited = True
        await _store_if_possible(engine, entry, "refused" if answered else "failed", _detail_of(error))
        raise


async def check(
    engine: AsyncEngine, who: Identity, action: Action = "read", arguments: Mapping[str, Any] | None = None
) -> None:
    """Check the right, and store a row if the right is missing.

    Raises:
        Forbidden: the role does not allow the action.
    """
    try:
        allow(who, action)
    except Forbidden as error:
        error.is_audited = True
        await refuse(engine, who, action, arguments or {}, str(error))
        raise


async def refuse(engine: AsyncEngine, who: Identity, action: str, arguments: Mapping[str, Any], detail: str) -> None:
    """Store the row of a request that was refused before anything was done."""
    await _store_if_possible(engine, Entry(who, action, dict(arguments)), "refused", detail)


def storable_fields(sent: Any) -> dict[str, Any]:
    """Return the fields of a refused request; an empty dictionary where they are too long to store."""
    return sent if isinstance(sent, dict) and len(str(sent)) <= _LONGEST_ARGUMENTS else {}


def client_address() -> str:
    """Return the client's address of the current request. uvicorn knows which proxies to trust."""
    return str(structlog.contextvars.get_contextvars().get("client", ""))


async def _store_if_possible(engine: AsyncEngine, entry: Entry, outcome: ActionOutcome, detail: str) -> None:
    """Store a row. Where the database cannot answer, only log that: an error here would hide the first error."""
    try:
        with busy_if_unavailable():
            await _store(engine, entry, outcome, detail)
    except Busy:
        log.error("no row in the audit log", subject=entry.who.subject, action=entry.action, outcome=outcome)  # noqa: TRY400 - `busy_if_unavailable` logged the cause


async def _store(engine: AsyncEngine, entry: Entry, outcome: ActionOutcome, detail: str = "") -> None:
    async with engine.begin() as conn:
        await _add(conn, entry, outcome, detail)


async def _add(conn: AsyncConnection, entry: Entry, outcome: ActionOutcome, detail: str) -> None:
    request_id = str(structlog.contextvars.get_contextvars().get("request_id", ""))
    values = {
        "subject": _storable(entry.who.subject),
        "role": entry.who.role,
        "action": entry.action,
        "arguments": json.dumps(_storable(entry.arguments), default=str),
        "outcome": outcome,
        "detail": _storable(detail)[:_LONGEST],
        "request_id": request_id,
        "client_address": client_address(),
    }
    await conn.execute(_ADD, values)
    if isinstance(entry.who, Actor):  # a command prints what it did
        return
    fields = {"subject": entry.who.subject, "role": entry.who.role, "outcome": outcome, "detail": detail[:_LONGEST]}
    log.info("admin action", action=entry.action, arguments=entry.arguments, **fields)


def _storable(value: Any) -> Any:
    """Escape what PostgreSQL's text and jsonb cannot store: NUL, lone surrogates, NaN and Infinity.

    The body of a refused request may contain any of them.
    """
    match value:
        case str():
            return value.encode("utf-8", "backslashreplace").decode().replace("\0", "\\x00")
        case dict():
            return {_storable(str(name)): _storable(one) for name, one in value.items()}
        case list() | tuple():
            return [_storable(one) for one in value]
        case float() if not math.isfinite(value):
            return str(value)
        case _:
            return value


def _detail_of(error: Exception) -> str:
    """Return the sentence of an answer; of a defect only its type, because its text may quote anything."""
    return str(error) if isinstance(error, AdminError) else type(error).__name__


ActionCursor = tuple[datetime, int]
"""The time and id of the row after which a page begins."""
NEWEST_ACTION: ActionCursor = (datetime.fromisoformat("9999-12-31T00:00:00+00:00"), 2**63 - 1)
_READ_ACTIONS = text("""
    SELECT id, at, subject, role, action, arguments, outcome, detail, request_id, client_address, times
      FROM levelsync.admin_actions
     WHERE (at, id) < (CAST(:at AS timestamptz), CAST(:id AS bigint))
       AND at >= coalesce(CAST(:since AS timestamptz), '-infinity')
       AND (CAST(:subject AS text) IS NULL OR subject = CAST(:subject AS text))
       AND (CAST(:action AS text) IS NULL OR action = CAST(:action AS text))
       AND (CAST(:outcome AS text) IS NULL OR outcome = CAST(:outcome AS text))
     ORDER BY at DESC, id DESC LIMIT :limit
""")


@dataclass(frozen=True, slots=True)
class AdminAction:
    """One row of the audit log, as stored.

    `times` is above 1 where one row counts several failed sign-ins. `client_address` may be empty.
    """

    id: int
    at: datetime
    subject: str
    role: str
    action: str
    arguments: dict[str, Any]
    outcome: str
    detail: str
    request_id: str
    client_address: str
    times: int


@dataclass(frozen=True, slots=True)
class ActionFilter:
    """A filter of the audit log. A row must match every value that is set."""

    since: datetime | None = None
    subject: str | None = None
    action: str | None = None
    outcome: Literal["done", "refused", "failed"] | None = None


async def list_actions(
    engine: AsyncEngine,
    who: Identity,
    wanted: ActionFilter = ActionFilter(),
    *,
    limit: int = 100,
    before: ActionCursor = NEWEST_ACTION,
) -> list[AdminAction]:
    """Return a page of the audit log, the newest row first, beginning after `before`.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who, "read_audit")
    with busy_if_unavailable():
        async with engine.connect() as conn:
            rows = await conn.execute(_READ_ACTIONS, _values(wanted, limit, before))
            return [AdminAction(**row) for row in rows.mappings()]


async def stream_actions(
    conn: AsyncConnection, since: datetime | None = None, subject: str | None = None, limit: int | None = None
) -> AsyncGenerator[AdminAction]:
    """Yield rows of the audit log, the newest first, without loading all of them into memory."""
    async with conn.stream(_READ_ACTIONS, _values(ActionFilter(since, subject), limit, NEWEST_ACTION)) as rows:
        async for row in rows.mappings():
            yield AdminAction(**row)


def _values(wanted: ActionFilter, limit: int | None, before: ActionCursor) -> dict[str, Any]:
    return asdict(wanted) | {"limit": limit, "at": before[0], "id": before[1]}
