"""The audit log: what was asked, by whom, from where, with what result."""

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

from service.admin.database import asked
from service.admin.identity import Action, AdminError, Busy, Forbidden, Identity, allow

log = structlog.get_logger(__name__)
Outcome = Literal["done", "refused", "failed"]
_LONGEST = 500
_LONGEST_ARGUMENTS = 2000
"""Characters of what was sent that a row of a refusal keeps."""
_ADD = text("""
    INSERT INTO levelsync.admin_actions
           (subject, role, action, arguments, outcome, detail, request_id, client_address)
    VALUES (:subject, :role, :action, CAST(:arguments AS jsonb), :outcome, :detail, :request_id, :client_address)
""")


@dataclass(frozen=True, slots=True)
class Actor:
    """Somebody without a token: whoever is at a terminal (`shell`), or who published a request (`event`)."""

    subject: str
    role: Literal["shell", "event"]


@dataclass(slots=True)
class Entry:
    """One row. `done` stores it in the transaction of the write that it describes."""

    who: Identity | Actor
    action: str
    arguments: dict[str, Any] = field(default_factory=dict)
    stored: bool = False

    async def done(self, conn: AsyncConnection, detail: str = "") -> None:
        """Store it in the caller's transaction: it stands if and only if the write does."""
        await _add(conn, self, "done", detail)
        self.stored = True

    async def failed(self, engine: AsyncEngine, detail: str) -> None:
        """Store that the write was tried, and that nothing of it stands."""
        await _store(engine, self, "failed", detail)
        self.stored = True


@asynccontextmanager
async def audited(engine: AsyncEngine, who: Identity, action: Action, **arguments: Any) -> AsyncIterator[Entry]:
    """Check the right, and leave a row whatever happens within: `done`, `refused` or `failed`.

    Raises:
        Forbidden: their role may not.
        Busy: the database cannot answer.
    """
    entry = Entry(who, action, arguments)
    try:
        allow(who, action)
        with asked():
            yield entry
            if not entry.stored:
                await _store(engine, entry, "done")
    except Exception as error:
        answered = isinstance(error, AdminError) and not isinstance(error, Busy)
        if isinstance(error, AdminError):
            error.is_audited = True
        await _store_if_possible(engine, entry, "refused" if answered else "failed", _words(error))
        raise


async def check(
    engine: AsyncEngine, who: Identity, action: Action = "read", arguments: Mapping[str, Any] | None = None
) -> None:
    """Check the right; leave a row only where it is missing.

    Raises:
        Forbidden: their role may not.
    """
    try:
        allow(who, action)
    except Forbidden as error:
        error.is_audited = True
        await refuse(engine, who, action, arguments or {}, str(error))
        raise


async def refuse(engine: AsyncEngine, who: Identity, action: str, arguments: Mapping[str, Any], detail: str) -> None:
    """Leave the row of something that was refused before it began."""
    await _store_if_possible(engine, Entry(who, action, dict(arguments)), "refused", detail)


def what_was_sent(sent: Any) -> dict[str, Any]:
    """Return the fields that were sent; none of them where they are too long to keep."""
    return sent if isinstance(sent, dict) and len(str(sent)) <= _LONGEST_ARGUMENTS else {}


def client_address() -> str:
    """Return the address that the request in hand came from; uvicorn knows which proxies to believe."""
    return str(structlog.contextvars.get_contextvars().get("client", ""))


async def _store_if_possible(engine: AsyncEngine, entry: Entry, outcome: Outcome, detail: str) -> None:
    """The row of something that failed must not hide why it failed; the log has it in any case."""
    try:
        with asked():
            await _store(engine, entry, outcome, detail)
    except Busy:
        log.error("no row in the audit log", subject=entry.who.subject, action=entry.action, outcome=outcome)  # noqa: TRY400 - `asked` said why


async def _store(engine: AsyncEngine, entry: Entry, outcome: Outcome, detail: str = "") -> None:
    async with engine.begin() as conn:
        await _add(conn, entry, outcome, detail)


async def _add(conn: AsyncConnection, entry: Entry, outcome: Outcome, detail: str) -> None:
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
    if isinstance(entry.who, Actor):  # a command says itself what it did
        return
    said = {"subject": entry.who.subject, "role": entry.who.role, "outcome": outcome, "detail": detail[:_LONGEST]}
    log.info("admin action", action=entry.action, arguments=entry.arguments, **said)


def _storable(value: Any) -> Any:
    """Escape what neither text nor jsonb can hold: NUL, lone surrogates, NaN and Infinity. A refused body has any."""
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


def _words(error: Exception) -> str:
    """An answer's own sentence; of a defect only its kind, because its text may quote anything."""
    return str(error) if isinstance(error, AdminError) else type(error).__name__


ActionCursor = tuple[datetime, int]
"""The row behind which a page begins: its time and id."""
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
    """One row. `times` is how often it happened where one row stands for many; `client_address` may be empty."""

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
    """Which rows: those that fit everything that is given."""

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
    """Read a page of the audit log, the newest first, beginning behind `before`.

    Raises:
        Forbidden, Busy.
    """
    await check(engine, who, "read_audit")
    with asked():
        async with engine.connect() as conn:
            rows = await conn.execute(_READ_ACTIONS, _values(wanted, limit, before))
            return [AdminAction(**row) for row in rows.mappings()]


async def stream_actions(
    conn: AsyncConnection, since: datetime | None = None, subject: str | None = None, limit: int | None = None
) -> AsyncGenerator[AdminAction]:
    """Give rows of the audit log, the newest first, without holding all of them."""
    async with conn.stream(_READ_ACTIONS, _values(ActionFilter(since, subject), limit, NEWEST_ACTION)) as rows:
        async for row in rows.mappings():
            yield AdminAction(**row)


def _values(wanted: ActionFilter, limit: int | None, before: ActionCursor) -> dict[str, Any]:
    return asdict(wanted) | {"limit": limit, "at": before[0], "id": before[1]}
