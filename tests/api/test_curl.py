"""The seed's three curl commands, unchanged, with a token of `levelsync token` and one of the application."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest

from tests.support.process import clean, levelsync, up

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
def folder() -> Iterator[Path]:
    """A folder outside pytest's, which other accounts may not enter, with a short grace time."""
    with tempfile.TemporaryDirectory(prefix="levelsync-test-curl-") as made:
        here = Path(made) / "here"
        here.mkdir()
        (here / ".env").write_text("LEVELSYNC_RECONCILE_GRACE=200ms\n")
        yield here


def settings_of(folder: Path) -> dict[str, str]:
    """Return the settings that `up` wrote for other commands."""
    lines = (folder / ".levelsync" / "up.env").read_text().splitlines()
    return dict(line.removeprefix("LEVELSYNC_").split("=", 1) for line in lines)


def shell(command: str, folder: Path, token: str) -> Any:
    """Run a command as a user types it. Only curl's settings map localhost:8000 to the port of the test."""
    rules = f'connect-to = "localhost:8000:127.0.0.1:{settings_of(folder)["HTTP_PORT"]}"\nmax-time = 60\nfail\n'
    (folder / ".curlrc").write_text(rules)
    environment = clean({"ADMIN_TOKEN": token, "CURL_HOME": str(folder)})
    run = subprocess.run(  # noqa: S602 - the very text of the seed
        command, shell=True, cwd=folder, env=environment, capture_output=True, text=True, timeout=90, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


async def damage(folder: Path) -> None:
    """Make two licenses wrong, and store roles in upper case as the application does."""
    connection = await asyncpg.connect(settings_of(folder)["DATABASE_URL"])
    try:
        await connection.execute("""
            UPDATE user_licenses SET current_level = 1 WHERE user_id IN (123, 132) AND specialization_type = 'PLAYER';
            ALTER TYPE userrole RENAME VALUE 'admin' TO 'ADMIN';
            ALTER TYPE userrole RENAME VALUE 'instructor' TO 'INSTRUCTOR';
            ALTER TYPE userrole RENAME VALUE 'student' TO 'STUDENT';
            ALTER TYPE userrole ADD VALUE 'SPORT_DIRECTOR';
        """)
    finally:
        await connection.close()


def token_of_the_application(folder: Path) -> str:
    """Return a token as the application creates it for user 1, with an address and an end but no role."""
    claims = {"sub": "admin1@example.org", "exp": int(time.time()) + 600}
    return jwt.encode(claims, settings_of(folder)["JWT_SECRET"], algorithm="HS256")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
async def test_the_three_commands_work_word_for_word(folder: Path) -> None:
    with up(folder, "--port", "0") as running:
        await running.ready()
        port = settings_of(folder)["HTTP_PORT"]
        assert f"http://127.0.0.1:{port}/docs" in running.stdout
        assert f"http://127.0.0.1:{port}/\n" in running.stdout
        token = levelsync("token", "--role", "admin", cwd=folder).stdout.strip()
        await damage(folder)
        before = {issue["user_id"] for issue in shell(LIST, folder, token)}
        assert before == {123, 132}
        repaired = shell(ONE_USER, folder, token)
        assert (repaired["success"], repaired["action"]) == (True, "updated")
        left = shell(EVERYTHING, folder, token)
        assert (left["success"], left["dry_run"]) == (True, True)
        assert {issue["user_id"] for issue in left["issues"]} == {132}
        assert {issue["user_id"] for issue in shell(LIST, folder, token)} == {132}
        own = token_of_the_application(folder)
        assert {issue["user_id"] for issue in shell(LIST, folder, own)} == {132}
        assert shell(ONE_USER, folder, own)["message"] == "Already in sync"
        assert {issue["user_id"] for issue in shell(EVERYTHING, folder, own)["issues"]} == {132}
