"""Ended sessions and failed sign-ins."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

import structlog
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.audit import client_address
from service.admin.database import ANSWERS_WITHIN, busy_if_unavailable, within
from service.admin.identity import AdminError, Busy, NotSignedIn

_END_SESSION = text("""
    INSERT INTO levelsync.ended_sessions (token_digest, ends_at) VALUES (:digest, :ends_at) ON CONFLICT DO NOTHING
""")
_FORGET = text("DELETE FROM levelsync.ended_sessions WHERE ends_at < clock_timestamp() - interval '1 hour'")
"""An expired token is refused as expired, so its row can go. An hour is more than any leeway of the clocks."""
_ALL = text("SELECT token_digest FROM levelsync.ended_sessions")
_IS_ENDED = text("SELECT EXISTS (SELECT FROM levelsync.ended_sessions WHERE token_digest = :digest)")


async def end(engine: AsyncEngine, token: str, ends_at: datetime) -> None:
    """Refuse the token from now on.

    Raises:
        Busy: the database cannot answer, and the token stays valid.
    """
    with busy_if_unavailable():
        async with engine.begin() as conn:
            await conn.execute(_FORGET)
            await conn.execute(_END_SESSION, {"digest": digest(token), "ends_at": ends_at})


async def read(engine: AsyncEngine) -> set[bytes]:
    """Return the digests of all signed-out tokens that are still stored.

    Raises:
        Busy: the database cannot answer.
    """
    with busy_if_unavailable():
        async with engine.connect() as conn:
            return set((await conn.execute(_ALL)).scalars())


async def check(engine: AsyncEngine, token: str) -> None:
    """Check that nobody signed out with this token.

    Raises:
        NotSignedIn: somebody signed out with it.
        Busy: the database cannot answer.
    """
    with busy_if_unavailable():
        async with engine.connect() as conn:
            ended = (await conn.execute(_IS_ENDED, {"digest": digest(token)})).scalar_one()
    if ended:
        raise NotSignedIn("The token was signed out. Sign in with a new one.")


def digest(token: str) -> bytes:
    """Return the digest that is stored of a token. Nobody can sign in with a digest."""
    return sha256(token.encode()).digest()


log = structlog.get_logger(__name__)
ROW_SECONDS = 60.0
"""Seconds for which one row counts an address's failures."""
_MAX_ADDRESSES, _OTHERS = 100, "others"
"""The maximum number of addresses of a process with a separate row. Further addresses share one row."""
_COUNT_FAILURE = text("""
    INSERT INTO levelsync.admin_actions (subject, role, action, outcome, detail, client_address, times)
    VALUES ('', 'none', 'sign_in', 'refused', :detail, :address, :times) RETURNING id
""")
_COUNT = text("UPDATE levelsync.admin_actions SET times = times + :times, detail = :detail WHERE id = :id")


@dataclass(slots=True)
class _Row:
    """The audit row of an address, and the number of failures that the row does not count yet."""

    address: str
    """The address, or `others` for all addresses that share this row."""
    since: float
    row_id: int | None = None
    waiting: int = 0
    writing: bool = False


class FailedSignIns:
    """Counts the failed sign-ins of one process in the audit log, in one row for each address and minute."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._engine = engine
        self._rows: dict[str, _Row] = {}

    @asynccontextmanager
    async def recorded(self) -> AsyncIterator[None]:
        """Count a `NotSignedIn` of the block."""
        try:
            yield
        except NotSignedIn as error:
            await self.record(error)
            raise

    async def record(self, error: AdminError) -> None:
        """Log a failed sign-in and its reason, and count it in the audit log if the database can answer."""
        address = client_address()
        log.warning("sign-in failed", address=address, reason=str(error))
        row = self._row_of(address)
        row.waiting += 1
        if row.writing:  # the call that writes now counts this failure too
            return
        row.writing = True
        try:
            while row.waiting:
                times, row.waiting = row.waiting, 0
                with busy_if_unavailable():
                    await within(ANSWERS_WITHIN, self._write(row, times, str(error)), "no answer")
        except Busy:
            row.waiting = 0
        finally:
            row.writing = False

    def _row_of(self, address: str) -> _Row:
        now = time.monotonic()
        self._rows = {one: row for one, row in self._rows.items() if now - row.since < ROW_SECONDS}
        name = address if address in self._rows or len(self._rows) < _MAX_ADDRESSES else _OTHERS
        return self._rows.setdefault(name, _Row(name, now))

    async def _write(self, row: _Row, times: int, detail: str) -> None:
        async with self._engine.begin() as conn:
            if row.row_id is not None:
                counting = await conn.execute(_COUNT, {"id": row.row_id, "times": times, "detail": detail})
                if counting.rowcount:
                    return
            values = {"detail": detail, "address": row.address, "times": times}
            row.row_id = (await conn.execute(_COUNT_FAILURE, values)).scalar_one()
