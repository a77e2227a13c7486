"""Queries of a database that may be overloaded, unreachable or silent. They raise `Busy` within seconds."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import structlog
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncEngine

from service.admin.identity import Busy
from service.faults import MISSING_OBJECT_STATES, InstallationFault, Kind, read_fault

log = structlog.get_logger(__name__)
T = TypeVar("T")
ANSWERS_WITHIN = 3.0
"""Seconds that the database may take for the shortest query before it counts as unreachable."""
_ALIVE = text("SELECT 1")
_abandoned: set[asyncio.Task[Any]] = set()


@contextmanager
def busy_if_unavailable() -> Iterator[None]:
    """Raise `Busy` for an error that means that the database cannot answer now. A defect passes unchanged.

    Where a person has to repair the installation, the text names the repair, because waiting does not help.
    """
    try:
        yield
    except InstallationFault as error:
        log.warning("the installation has to be repaired", error=str(error))
        raise Busy(str(error)) from error
    except (SQLAlchemyError, OSError) as error:
        fault = read_fault(error)
        if fault.kind is Kind.RECORD:
            raise
        log.warning("database cannot answer", cause=fault.kind.value, sqlstate=fault.sqlstate, error=fault.message)
        if fault.sqlstate in MISSING_OBJECT_STATES:
            raise Busy(f"The database is not as levelsync needs it: {fault.message}. Run: levelsync doctor") from error
        raise Busy("The database cannot answer now; try again in a few seconds.") from error


async def within(seconds: float, work: Coroutine[Any, Any, T], otherwise: str) -> T:
    """Return the result of `work`, after waiting at most `seconds`.

    Work that hangs in a silent database ends long after its cancellation, so nobody waits for that.

    Raises:
        Busy: the work did not end in time; the text is `otherwise`.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _abandoned.add(task)
            task.add_done_callback(_forget)
    if not done:
        raise Busy(otherwise)
    return task.result()


async def check_alive(engine: AsyncEngine) -> None:
    """Check that the database answers the shortest query.

    Raises:
        Busy: it is unreachable, has no connection left, or is silent.
    """
    with busy_if_unavailable():
        await within(ANSWERS_WITHIN, _ask(engine), "The database does not answer; try again in a few seconds.")


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        await conn.execute(_ALIVE)


def _forget(task: asyncio.Task[Any]) -> None:
    """Retrieve the result of abandoned work, because asyncio warns about exceptions that nobody retrieves."""
    _abandoned.discard(task)
    if not task.cancelled():
        task.exception()
