"""The application drops a column under a running service. Every command and the API name the column."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli import app
from service.settings import Settings
from tests.support.process import LevelsyncProcess, Result, environment, levelsync
from tests.support.tables import execute
from tests.support.tokens import token

API = "/api/v1/licenses/admin/sync"
GONE = "the table specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set"
COMMANDS = (
    ("drift",),
    ("drift", "--specialization", "PLAYER"),
    ("sync", "1", "--specialization", "PLAYER"),
    ("sync", "1", "--all"),
    ("reconcile",),
    ("reconcile", "--execute", "--specialization", "PLAYER"),
)


@pytest.mark.usefixtures("topics")
async def test_the_column_disappears_under_a_running_service(
    engine: AsyncEngine, settings: Settings, levelsync_process: Callable[..., LevelsyncProcess]
) -> None:
    """Exit 3 or 503 with one sentence, and no advice to look for a role or to retry."""
    process = levelsync_process()
    await process.start()
    await execute(engine, "ALTER TABLE specializations DROP COLUMN max_levels")
    env = environment(settings, HTTP_PORT=str(process.url).rpartition(":")[2])
    for command in COMMANDS:
        assert_named(levelsync(*command, env=env))
    doctor = json.loads(levelsync("doctor", "--json", env=env).stdout)
    found = {one["check"]: (one["verdict"], GONE in one["detail"]) for one in doctor["checks"]}
    assert {found["Application's columns"], found["Specializations"]} == {("FAIL", True)}
    async with httpx.AsyncClient(
        base_url=f"{process.url}{API}", headers={"Authorization": f"Bearer {token(settings, 'admin')}"}, timeout=20
    ) as client:
        answers = [
            await client.get("/desync-issues"),
            await client.post("/user/1", json={"specialization": "PLAYER"}),
            await client.post("/user/1/all", json={}),
            await client.post("/all", json={}),
        ]
    assert [(one.status_code, GONE in one.json()["detail"]) for one in answers] == [(503, True)] * 4


async def test_another_column_that_is_gone_is_named_too(engine: AsyncEngine, settings: Settings) -> None:
    await execute(engine, "ALTER TABLE specialization_progress DROP COLUMN current_level CASCADE")
    for command in COMMANDS[:3]:
        run = levelsync(*command, env=environment(settings))
        assert (run.returncode, run.stderr.count("\n")) == (3, 1), run.stderr
        assert "current_level" in run.stderr
        assert "levelsync doctor" in run.stderr


def test_a_defect_is_exit_70_with_its_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:

    def broken(*_: Any) -> None:
        raise ZeroDivisionError("no such thing")

    monkeypatch.setattr("service.cli.context.settings", broken)
    with pytest.raises(SystemExit) as ended:
        app(["doctor"])
    said = capsys.readouterr().err
    assert ended.value.code == 70
    assert "Traceback" in said
    assert "no such thing" in said
    assert "ZeroDivisionError: this is a defect of levelsync" in said


def assert_named(run: Result) -> None:
    assert (run.returncode, run.stderr.count("\n")) == (3, 1), run.stderr
    assert GONE in run.stderr
