"""The seed's three curl commands, unchanged, with a token of `levelsync token` and one of the application."""

from __future__ import annotations

import asyncio
import json
import shutil
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.cli import servers
from service.cli.up import _up
from service.settings import UP_ENV_FILE, Settings
from tests.support.process import clean, levelsync
from tests.support.tables import execute
from tests.support.waiting import eventually

LIST = """
curl -X GET "http://localhost:8000/api/v1/licenses/admin/sync/desync-issues" \\
  -H "Authorization: Bearer $ADMIN_TOKEN"
"""
ONE_USER = """
curl -X POST "http://localhost:8000/api/v1/licenses/admin/sync/user/123" \\
  -H "Authorization: Bearer $ADMIN_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{"specialization": "PLAYER", "direction": "progress_to_license"}'
"""
EVERYTHING = """
curl -X POST "http://localhost:8000/api/v1/licenses/admin/sync/all" \\
  -H "Authorization: Bearer $ADMIN_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{"direction": "progress_to_license", "dry_run": true}'
"""


@pytest.fixture
async def folder(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Path]:
    """A folder where `levelsync up` runs, with the tests' servers instead of its own."""

    @asynccontextmanager
    async def servers_of_the_tests(_data: Path, asked: Settings) -> AsyncIterator[Settings]:
        yield asked

    monkeypatch.setattr(servers, "local_stack", servers_of_the_tests)
    monkeypatch.chdir(tmp_path)
    quick = settings.model_copy(update={"reconcile_grace": timedelta(milliseconds=200)})
    with servers.locked_folder(reset=False) as data:
        running = asyncio.create_task(_up(quick, data))
        await eventually(lambda: running.done() or UP_ENV_FILE.exists())
        yield tmp_path
        running.cancel()
        await asyncio.wait({running})


def settings_of(folder: Path) -> dict[str, str]:
    """Return the settings that `up` wrote for other commands."""
    lines = (folder / UP_ENV_FILE).read_text().splitlines()
    return dict(line.removeprefix("LEVELSYNC_").split("=", 1) for line in lines)


async def shell(command: str, folder: Path, token: str) -> Any:
    """Run a command as a user types it. Only curl's settings map localhost:8000 to the port of the test."""
    rules = f'connect-to = "localhost:8000:127.0.0.1:{settings_of(folder)["HTTP_PORT"]}"\nmax-time = 60\nfail\n'
    (folder / ".curlrc").write_text(rules)
    typed = await asyncio.create_subprocess_shell(
        command, cwd=folder, env=clean({"ADMIN_TOKEN": token, "CURL_HOME": str(folder)}), stdout=PIPE, stderr=PIPE
    )
    out, err = await typed.communicate()
    assert typed.returncode == 0, err.decode()
    return json.loads(out)


DAMAGE = (
    "UPDATE user_licenses SET current_level = 1 WHERE user_id IN (123, 132) AND specialization_type = 'PLAYER'",
    *(f"ALTER TYPE userrole RENAME VALUE '{role}' TO '{role.upper()}'" for role in ("admin", "instructor", "student")),
    "ALTER TYPE userrole ADD VALUE 'SPORT_DIRECTOR'",
)
"""Makes two licenses wrong, and stores roles in upper case as the application does."""


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
@pytest.mark.usefixtures("topics")
async def test_the_three_commands_work_word_for_word(
    capsys: pytest.CaptureFixture[str], folder: Path, engine: AsyncEngine
) -> None:
    found = settings_of(folder)
    printed = capsys.readouterr().out
    assert f"http://127.0.0.1:{found['HTTP_PORT']}/docs" in printed
    assert f"http://127.0.0.1:{found['HTTP_PORT']}/\n" in printed
    await execute(engine, *DAMAGE)
    token = levelsync("token", "--role", "admin", cwd=folder).stdout.strip()
    before = {issue["user_id"] for issue in await shell(LIST, folder, token)}
    assert before == {123, 132}
    repaired = await shell(ONE_USER, folder, token)
    assert (repaired["success"], repaired["action"]) == (True, "updated")
    left = await shell(EVERYTHING, folder, token)
    assert (left["success"], left["dry_run"]) == (True, True)
    assert {issue["user_id"] for issue in left["issues"]} == {132}
    assert {issue["user_id"] for issue in await shell(LIST, folder, token)} == {132}
    # A token as the application creates it for user 1, with an address and an end but no role.
    claims = {"sub": "admin1@example.org", "exp": int(time.time()) + 600}
    own = jwt.encode(claims, found["JWT_SECRET"], algorithm="HS256")
    assert {issue["user_id"] for issue in await shell(LIST, folder, own)} == {132}
    assert (await shell(ONE_USER, folder, own))["message"] == "Already in sync"
    assert {issue["user_id"] for issue in (await shell(EVERYTHING, folder, own))["issues"]} == {132}
