"""Takes the steps that are due: any number of processes may, and each step is taken by one of them."""

from __future__ import annotations

import asyncio

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from service.background import wait_for
from service.database.faults import read_fault
from service.health import Health
from service.reconcile import sql
from service.reconcile.steps import Steps
from service.reconcile.values import Run, run_of

log = structlog.get_logger(__name__)
LOOK_EVERY = 0.1
"""Seconds between looks while nothing is due."""
BACKOFF = 2.0
"""Seconds after a fault, before the step is due again. The steps of other runs are taken meanwhile."""


class StepFailed(Exception):  # noqa: N818 - its cause is the error
    """A step of a run failed; it is due again later, and the steps of other runs come first."""


async def take_due_steps(engine: AsyncEngine, steps: Steps, health: Health) -> None:
    """Take due steps for as long as the service runs; a fault is reported, and its step is tried again later."""
    while True:
        steps.woken.clear()  # before the look: what becomes due during it wakes again
        try:
            taken = await take_one(engine, steps)
        except StepFailed as failed:
            _report(failed, steps, health)
        except Exception as error:  # noqa: BLE001 - whatever it is, the step stays due and is tried again
            _report(error, steps, health)
            await asyncio.sleep(BACKOFF)
        else:
            health.clear("reconcile", steps)
            if not taken:
                await wait_for(steps.woken, LOOK_EVERY)


async def take_one(engine: AsyncEngine, steps: Steps) -> bool:
    """Take the step of one run that is due, under its row; False when none is."""
    async with engine.begin() as conn:
        run = await _lock_due(conn, steps)
        if run is None:
            return False
        try:
            async with conn.begin_nested():
                await steps.take(conn, run)
        except Exception as error:
            await conn.execute(sql.PUT_OFF, {"id": run.id, "after": BACKOFF})
            await conn.commit()
            raise StepFailed from error
        return True


async def _lock_due(conn: AsyncConnection, steps: Steps) -> Run | None:
    """Lock the run whose step has been due for longest and that nobody else is taking a step of."""
    for waiting in steps.due((await conn.execute(sql.UNFINISHED)).all()):
        row = (await conn.execute(sql.LOCK_STEP, {"id": waiting.id, "due_at": waiting.due_at})).one_or_none()
        if row is not None:
            return run_of(row)
    return None


def _report(error: Exception, steps: Steps, health: Health) -> None:
    cause = error.__cause__ if isinstance(error, StepFailed) else error
    fault = read_fault(cause or error)
    health.report("reconcile", steps, fault.message)
    log.warning("a step of a run failed, tried again", error=fault.message, kind=type(cause or error).__name__)
