"""The shell blocks of README and documents, run line by line in a folder where `levelsync up` runs."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from service.local.postgres import _wheel_programs
from tests.support import reader
from tests.support.process import Up, clean, levelsync, up
from tests.support.repository import ROOT, read
from tests.support.waiting import eventually

INVALID = ("publish", "leveled-up", "--user", "999", "--specialization", "PLAYER", "--to-level", "5")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a virtual environment, as `make install` leaves a checkout."""
    with tempfile.TemporaryDirectory(prefix="levelsync-quick-start-") as made:
        here = Path(made) / "here"
        here.mkdir()
        (here / ".venv").symlink_to(sys.prefix)
        yield here


def block(document: str, begins: str) -> list[str]:
    """Return the lines of a document's block, with continued lines joined."""
    text = read(document)
    (found,) = [one for language, one in reader.blocks(text) if language != "sql" and one.startswith(begins)]
    return found.replace("\\\n", "").strip().splitlines()


def environment(running: Up) -> dict[str, str]:
    """Return the environment of a shell with the commands in its path and the variable that a document needs."""
    (url,) = re.findall(
        r"^LEVELSYNC_DATABASE_URL=(.+)$", (running.folder / ".levelsync/up.env").read_text(), re.MULTILINE
    )
    path = os.pathsep.join((str(Path(sys.executable).parent), str(_wheel_programs()), os.environ["PATH"]))
    return clean() | {"PATH": path, "DATABASE_URL_OF_UP": url}


async def follow(running: Up, lines: list[str], codes: list[int], **replaced: str) -> list[str]:
    """Run the lines in turn and compare the exit codes; return what each line printed. `export` is remembered."""
    said, exported = [], ""
    for line, code in zip(lines, codes, strict=True):
        text = line
        for written, here in replaced.items():
            text = text.replace(written, here)
        text = text.replace("localhost:8000", running_address(running)).replace(
            "$LEVELSYNC_DATABASE_URL", "$DATABASE_URL_OF_UP"
        )
        if text.startswith("export "):
            exported = f"{text}\n"
        command = ["bash", "-c", exported + text]
        options: dict[str, Any] = {"cwd": running.folder, "env": environment(running)}
        typed = partial(subprocess.run, command, capture_output=True, text=True, timeout=60, **options)
        run = await asyncio.to_thread(typed)
        assert run.returncode == code, (text, run.stdout, run.stderr)
        said.append(run.stdout)
    return said


def running_address(running: Up) -> str:
    found = re.search(r"http://(127\.0\.0\.1:\d+)", running.stdout)
    assert found is not None
    return found[1]


@pytest.mark.soak
@pytest.mark.timeout(300)  # twenty commands in sequence
async def test_the_blocks_work_in_a_folder_where_up_runs(folder: Path) -> None:
    assert block("README.md", "make install") == ["make install", ".venv/bin/levelsync up"]
    with up(folder, "--port", "0") as running:
        await running.ready()
        publish, drift, dry, execute = block("README.md", ".venv/bin/levelsync publish")
        await follow(running, [publish], [0])
        await eventually(lambda: levelsync("drift", cwd=folder).returncode == 1)
        await follow(running, [drift, dry, execute, drift], [1, 1, 0, 0])

        dry, execute, one_pair, issues, cancel = block("docs/reconcile.md", ".venv/bin/levelsync reconcile ")
        await follow(running, [dry, execute, one_pair], [0, 0, 0])
        run = json.loads(levelsync("runs", "--json", cwd=folder).stdout)["runs"][0]
        await follow(running, [issues, cancel], [0, 0], ID=run["run_id"])

        for _ in range(2):
            assert levelsync(*INVALID, cwd=folder).returncode == 0
        await eventually(
            lambda: json.loads(levelsync("dead-letters", "list", "--json", cwd=folder).stdout)["total"] == 2
        )
        await follow(running, block("docs/dead-letters.md", "levelsync dead-letters"), [0, 1, 0], **{"7 8": "1 2"})

        _, answer = await follow(running, block("docs/http-api.md", "export"), [0, 0])
        assert json.loads(answer)["success"] is True
        await follow(running, block("docs/runbook.md", "levelsync doctor"), [0, 0, 0])
        await follow(running, block("docs/runbook.md", "psql"), [0])
        activate, check = block("docs/curriculum.md", ". .venv")
        assert activate.startswith(". .venv/bin/activate ")
        await follow(running, [check], [0], scripts=str(ROOT / "scripts"))
