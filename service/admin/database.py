"""Asking a database that may be busy, away or silent: the answer is `Busy` within seconds, never a hang."""

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
from service.faults import NOT_AS_NEEDED, InstallationFault, Kind, read_fault

log = structlog.get_logger(__name__)
T = TypeVar("T")
ANSWERS_WITHIN = 3.0
"""Seconds that a database may take for the shortest question before it counts as unreachable."""
_ALIVE = text("SELECT 1")
_left_behind: set[asyncio.Task[Any]] = set()


@contextmanager
def asked() -> Iterator[None]:
    """Within it, a database that cannot answer is `Busy`; an error that is a defect stays what it is.

    What somebody has to repair is named: waiting does not help then.
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
        if fault.sqlstate in NOT_AS_NEEDED:
            raise Busy(f"The database is not as levelsync needs it: {fault.message}. Run: levelsync doctor") from error
        raise Busy("The database cannot answer now; try again in a few seconds.") from error


async def within(seconds: float, work: Coroutine[Any, Any, T], otherwise: str) -> T:
    """Wait for `work`, at most this long. What hangs in a silent database takes its cancellation late: it is left.

    Raises:
        Busy: it has not ended in time, with `otherwise` as its text.
    """
    task = asyncio.create_task(work)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        if not task.done():
            task.cancel()
            _left_behind.add(task)
            task.add_done_callback(_forget)
    if not done:
        raise Busy(otherwise)
    return task.result()


async def check_alive(engine: AsyncEngine) -> None:
    """Ask the database the shortest question.

    Raises:
        Busy: it is away, has no connection left, or is silent.
    """
    with asked():
        await within(ANSWERS_WITHIN, _ask(engine), "The database does not answer; try again in a few seconds.")


async def _ask(engine: AsyncEngine) -> None:
    async with engine.connect() as conn:
        await conn.execute(_ALIVE)


def _forget(task: asyncio.Task[Any]) -> None:
    """Take note of the end of what was left behind: nobody else asks how it went."""
    _left_behind.discard(task)
    if not task.cancelled():
        task.exception()
