"""Any request with any token is answered as documented, and never with a 5xx."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from service.web.api import syncs
from tests.support.load import new_seed
from tests.support.tables import fill
from tests.support.tokens import token

CALLERS = ("admin", "instructor", "student", "nobody")


@pytest.fixture
async def tables(engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some drift. No request waits for a run, because there is no worker."""
    monkeypatch.setattr(syncs, "WAIT", 0.02)
    await fill(engine, {(user, "PLAYER"): user % 8 + 1 for user in range(1, 50)}, {(3, "PLAYER"): 5, (4, "COACH"): 9})


async def schemathesis(url: str, headers: list[str], folder: Path, examples: int, *more: str) -> None:
    """Run Schemathesis against the API."""
    command = [str(Path(sys.executable).with_name("schemathesis")), "run", f"{url}/openapi.json", *headers]
    # A cursor that was made up and a specialization that is none keep the schema, and are refused all the same.
    checks = ["--checks", "all", "--exclude-checks", "positive_data_acceptance"]
    options = [*checks, "--no-shrink", "--max-examples", str(examples), "--seed", str(new_seed()), "--no-color"]
    process = await asyncio.create_subprocess_exec(
        *command, *options, *more, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        said, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 0, said.decode()


def bearer(settings: Settings, caller: str) -> list[str]:
    return [] if caller == "nobody" else ["--header", f"Authorization: Bearer {token(settings, caller)}"]


@pytest.mark.usefixtures("tables")
async def test_any_request_is_answered_as_documented(api_url: str, settings: Settings, tmp_path: Path) -> None:
    """Few examples for each endpoint, as an admin. The soak covers every role and boundary."""
    phases = "examples,fuzzing"
    await schemathesis(api_url, bearer(settings, "admin"), tmp_path, 2, "--phases", phases)


@pytest.mark.soak
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("caller", CALLERS)
async def test_very_many_requests_are_answered_as_documented(
    api_url: str, settings: Settings, tmp_path: Path, caller: str
) -> None:
    await schemathesis(api_url, bearer(settings, caller), tmp_path, 1_000, "--max-time", "30")
