"""Any request, well-formed or not, with every kind of token: no 5xx, and nothing that is not documented."""

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
    """Some drift; nobody waits for a run, because no worker is there."""
    monkeypatch.setattr(syncs, "WAIT", 0.02)
    await fill(engine, {(user, "PLAYER"): user % 8 + 1 for user in range(1, 50)}, {(3, "PLAYER"): 5, (4, "COACH"): 9})


async def schemathesis(url: str, headers: list[str], folder: Path, examples: int, *more: str) -> None:
    """Let it try what it can think of."""
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
    """The caller's token, as Schemathesis takes it."""
    return [] if caller == "nobody" else ["--header", f"Authorization: Bearer {token(settings, caller)}"]


@pytest.mark.usefixtures("tables")
async def test_any_request_is_answered_as_documented(api_url: str, settings: Settings, tmp_path: Path) -> None:
    """A few of each kind for every endpoint, by who may do most; the soak has every role and boundary."""
    phases = "examples,fuzzing"
    await schemathesis(api_url, bearer(settings, "admin"), tmp_path, 2, "--phases", phases)


@pytest.mark.soak
@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("caller", CALLERS)
async def test_very_many_requests_are_answered_as_documented(
    api_url: str, settings: Settings, tmp_path: Path, caller: str
) -> None:
    """Half a minute for each caller, also one request after another on what the one before has made."""
    await schemathesis(api_url, bearer(settings, caller), tmp_path, 1_000, "--max-time", "30")
