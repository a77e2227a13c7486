"""examples/application_hooks.py, run beside the application."""

from __future__ import annotations

import asyncio
import sys

import pytest

from service.process.runtime import Service
from service.settings import Settings
from tests.support import application
from tests.support.process import serve_environment
from tests.support.repository import ROOT
from tests.support.states import STATES, State
from tests.support.waiting import eventually

_LEVELS = """
    SELECT p.current_level, l.current_level FROM specialization_progress p
      JOIN user_licenses l ON l.user_id = p.student_id AND l.specialization_type = p.specialization_id
     WHERE p.student_id = 42 AND p.specialization_id = '{}'
"""


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("state", [STATES[0], STATES[-1]], ids=str)
async def test_the_example_raises_relays_and_demotes(migrated: str, settings: Settings, state: State) -> None:
    """The events are applied after the demotion, and the demotion stays."""
    player, coach = state.specializations[0], state.specializations[-2]
    example = await asyncio.create_subprocess_exec(
        sys.executable,
        "examples/application_hooks.py",
        *("42", player, coach),
        cwd=ROOT,
        env=serve_environment(settings) | {"PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(example.communicate(), 60)
    assert example.returncode == 0, err.decode()
    assert out.decode().startswith("2 events relayed\n")
    assert await application.rows(migrated, _LEVELS.format(coach)) == [(1, 2)]
    async with Service(settings, frozenset({"apply"})) as service:
        await asyncio.wait_for(service.ready(), 30)

        async def applied() -> bool:
            return bool(await application.value(migrated, "SELECT sum(next_offset) = 2 FROM levelsync.applied_offsets"))

        await eventually(applied)
    assert await application.rows(migrated, _LEVELS.format(coach)) == [(2, 2)]
    assert await application.rows(migrated, _LEVELS.format(player)) == [(5, 5)]
    assert await application.value(migrated, "SELECT count(*) FROM application_outbox") == 0
