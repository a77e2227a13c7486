"""The memory of a process for an outage: the last overview, the people signed in, and the tokens signed out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import structlog
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin import sessions
from service.admin.database import within
from service.admin.identity import Busy, Identity
from service.admin.overview import Overview, Waits, read_own_overview
from service.admin.series import History, Series
from service.stream.background import stop

if TYPE_CHECKING:
    from markupsafe import Markup  # it comes with the extra `page`

log = structlog.get_logger(__name__)
EVERY = 30.0
"""Seconds between two overviews that are read without a request."""
MAX_PEOPLE = 1000
_READ_WITHIN = 10.0


class Memory:
    """The memory of one process. It does not survive the process, and no request waits for it."""

    def __init__(self) -> None:
        self.last: Overview | None = None
        self.history = History()
        self.charts: tuple[Series, Markup] | None = None
        """The charts that were drawn last, and their series."""
        self._ended: set[bytes] = set()
        self._people: dict[bytes, Identity] = {}
        self._waits = Waits()

    async def read(self, engine: AsyncEngine) -> None:
        """Read the overview and the signed-out tokens into the memory.

        Raises:
            Busy: the database cannot answer, and the memory does not change.
        """
        self._ended = await sessions.read(engine)
        self.last = await read_own_overview(engine, {}, self._waits, self.history)

    def remember(self, token: str, who: Identity) -> None:
        """Remember the identity of a token. Beyond `MAX_PEOPLE`, the oldest identity is forgotten."""
        self._people[sessions.digest(token)] = who
        while len(self._people) > MAX_PEOPLE:
            self._people.pop(next(iter(self._people)))

    def end(self, token: str) -> None:
        """Remember that the token was signed out."""
        self._ended.add(sessions.digest(token))

    def is_ended(self, token: str) -> bool:
        """Return whether this process knows that the token was signed out."""
        return sessions.digest(token) in self._ended

    def find(self, token: str) -> Identity | None:
        """Return the identity of a token; None where the token has expired or this process has not seen it."""
        who = self._people.get(sessions.digest(token))
        return who if who is not None and who.expires_at > datetime.now(UTC) else None


@asynccontextmanager
async def refreshed(memory: Memory, engine: AsyncEngine) -> AsyncIterator[None]:
    """Refresh the memory periodically, until the end of the block."""
    task = asyncio.create_task(_refresh(memory, engine))
    try:
        yield
    finally:
        await stop(task)


async def _refresh(memory: Memory, engine: AsyncEngine) -> None:
    while True:
        await asyncio.sleep(EVERY)  # first, because a start is busy, and a request reads the overview itself
        try:
            await within(_READ_WITHIN, memory.read(engine), "The overview took too long.")
        except Busy:  # already logged
            pass
        except Exception as error:  # noqa: BLE001 - the next read may succeed
            log.warning("cannot read the overview", error=str(error))
