"""How the roles of a process start."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from service import runtime
from service.runtime import Service
from service.settings import Settings


@pytest.mark.usefixtures("topics")
async def test_both_groups_are_joined_at_once(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker lets each new group wait for three seconds: one after the other, the start took twice as long."""
    meeting = asyncio.Barrier(2)

    @asynccontextmanager
    async def meets_the_other(*_given: Any) -> AsyncIterator[Callable[[], list[object]]]:
        await meeting.wait()
        yield list

    monkeypatch.setattr(runtime, "apply_role", meets_the_other)
    monkeypatch.setattr(runtime, "reconcile_role", meets_the_other)
    async with Service(settings, frozenset({"apply", "reconcile"})) as service:
        await asyncio.wait_for(service.ready(), 20)
