"""The shell blocks of README and documents, run line by line in a folder where `levelsync up` runs."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.local.postgres import _wheel_programs
from tests.support.process import Up, clean, levelsync, up
from tests.support.reader import BIN, Reader, blocks
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
    (found,) = [one for language, one in blocks(text) if language != "sql" and one.startswith(begins)]
    return found.replace("\\\n", "").strip().splitlines()


def reader_beside(running: Up) -> Reader:
    """Return a reader with the commands in the path and the variable that a document needs."""
    (url,) = re.findall(
        r"^LEVELSYNC_DATABASE_URL=(.+)$", (running.folder / ".levelsync/up.env").read_text(), re.MULTILINE
    )
    address = re.search(r"http://(127\.0\.0\.1:\d+)", running.stdout)
    assert address is not None
    path = os.pathsep.join((str(BIN), str(_wheel_programs()), os.environ["PATH"]))
    environment = clean() | {"PATH": path, "DATABASE_URL_OF_UP": url}
    replaced = {"localhost:8000": address[1], "$LEVELSYNC_DATABASE_URL": "$DATABASE_URL_OF_UP"}
    return Reader(running.folder, url, environment, replaced)


async def follow(reader: Reader, lines: list[str], codes: list[int]) -> None:
    """Run the lines in turn, and compare their exit codes."""
    for line, code in zip(lines, codes, strict=True):
        await reader.run(f"{line} # exit {code}")


@pytest.mark.soak
@pytest.mark.timeout(300)  # twenty commands in sequence
async def test_the_blocks_work_in_a_folder_where_up_runs(folder: Path) -> None:
    assert block("README.md", "make install") == ["make install", ".venv/bin/levelsync up"]
    with up(folder, "--port", "0") as running:
        await running.ready()
        reader = reader_beside(running)
        publish, drift, dry, execute = block("README.md", ".venv/bin/levelsync publish")
        await follow(reader, [publish], [0])
        await eventually(lambda: levelsync("drift", cwd=folder).returncode == 1)
        await follow(reader, [drift, dry, execute, drift], [1, 1, 0, 0])

        dry, execute, one_pair, issues, cancel = block("docs/reconcile.md", ".venv/bin/levelsync reconcile ")
        await follow(reader, [dry, execute, one_pair], [0, 0, 0])
        run = json.loads(levelsync("runs", "--json", cwd=folder).stdout)["runs"][0]
        await follow(reader, [one.replace(" ID ", f" {run['run_id']} ") for one in (issues, cancel)], [0, 0])

        for _ in range(2):
            assert levelsync(*INVALID, cwd=folder).returncode == 0
        await eventually(
            lambda: json.loads(levelsync("dead-letters", "list", "--json", cwd=folder).stdout)["total"] == 2
        )
        reader.replaced["7 8"] = "1 2"
        await follow(reader, block("docs/dead-letters.md", "levelsync dead-letters"), [0, 1, 0])

        answer = await reader.run("\n".join(block("docs/http-api.md", "export")).replace("curl", "curl -s"))
        assert json.loads(answer)["success"] is True
        await follow(reader, block("docs/runbook.md", "levelsync doctor"), [0, 0, 0])
        await follow(reader, block("docs/runbook.md", "psql"), [0])
        activate, check = block("docs/curriculum.md", ". .venv")
        assert activate.startswith(". .venv/bin/activate ")
        await follow(reader, [check.replace("scripts", str(ROOT / "scripts"))], [0])
