"""A second session changes a pair while a sync or a heal works on it.

Both lower user 1's license from 3 to 2, the level of its progress. A sync comes before or after the change. A heal
that comes after it leaves the pair unchanged, because the scan saw other levels (law 6).
"""

from __future__ import annotations

from collections.abc import Awaitable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support.applier import Events, rise, sync
from tests.support.interference import INTERFERENCES, ONE, Interference, Setup, both_orders, sql
from tests.support.model import ADVANCED, Meant, Model
from tests.support.runs import OneWorker, until_step
from tests.support.tables import execute

_ANOTHER = "INSERT INTO user_licenses (user_id, specialization_type, started_at) VALUES (2, 'PLAYER', now())"
_LATER = datetime.now(UTC) + timedelta(minutes=10)


def _event(name: str, event: Meant) -> Interference:
    async def apply(engine: AsyncEngine) -> None:
        await (await Events(engine).begin()).apply(event)

    return Interference(name, apply, lambda model: model.apply(event))


CHANGES = (
    *(one for one in INTERFERENCES if one.name in {"rename_the_license", "delete_the_license"}),
    _event("an_old_event", rise(1, 5)),
    _event("a_later_event", rise(1, 5, at=_LATER)),
    _event("an_old_event_of_the_other_side", rise(1, 4, kind=ADVANCED)),
    _event("a_later_event_of_the_other_side", rise(1, 4, kind=ADVANCED, at=_LATER)),
    Interference(
        "set_the_progress",
        sql("UPDATE specialization_progress SET current_level = 4 WHERE student_id = 1"),
        lambda model: model.progress.update({ONE: 4}),
    ),
    Interference(
        "lower_the_maximum",
        sql("UPDATE specializations SET max_levels = 1 WHERE id = 'PLAYER'"),
        lambda model: model.maximum.update(PLAYER=1),
    ),
)


def _sync(model: Model) -> None:
    """Apply the sync to the model: the license gets the progress's level, and a fence is set."""
    before, level = model.licenses.get(ONE), model.progress[ONE]
    if level > model.maximum["PLAYER"]:
        return
    model.fences[ONE] = datetime.now(UTC)
    if before != level:
        model.licenses[ONE] = level
        model.history.append((ONE, before or 0, level, datetime.now(UTC), "sync"))


def _heal(model: Model) -> None:
    """Apply the heal to the model: it is a sync where both levels are those that the scan saw."""
    if (model.progress[ONE], model.licenses.get(ONE)) == (2, 3):
        _sync(model)


@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.name)
async def test_a_change_between_statements_of_a_sync(setup: Setup, change: Interference) -> None:
    async def begin() -> Awaitable[Any]:
        await setup.reset()
        return sync(setup.batch, 1, "progress_to_license")

    await setup.interrupt(change, begin, both_orders(_sync, change.mean))


@pytest.mark.soak
@pytest.mark.parametrize("change", CHANGES, ids=lambda one: one.name)
async def test_a_change_between_statements_of_a_heal(setup: Setup, change: Interference, settings: Settings) -> None:
    """The heal comes wholly before the change, or leaves the pair unchanged."""
    at_once = settings.model_copy(update={"reconcile_grace": timedelta(0)})

    async def begin() -> Awaitable[Any]:
        await setup.reset()
        await execute(setup.other, "DELETE FROM user_licenses WHERE user_id = 2")
        one_worker = OneWorker(setup.batch, at_once)
        run_id = await one_worker.request(dry_run=False, force=True)
        await until_step(one_worker, run_id, "heal")
        await execute(setup.other, _ANOTHER)
        (message,) = await one_worker.messages()
        return one_worker.chunks.work(message)

    await setup.interrupt(change, begin, both_orders(_heal, change.mean))
