"""A reader who follows a document in a folder, block by block."""

from __future__ import annotations

import asyncio
import re
import sys
import textwrap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.local.process import ServerProcess
from tests.support import application
from tests.support.process import http_get
from tests.support.repository import ROOT
from tests.support.waiting import eventually

BIN = Path(sys.executable).parent
_BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_EXIT = re.compile(r" +# exit (\d+)$", re.MULTILINE)


def blocks(text: str) -> list[tuple[str, str]]:
    """Return language and text of every block, in the document's order."""
    return [(language, textwrap.dedent(block)) for _, language, block in _BLOCK.findall(text)]


def section(text: str, heading: str) -> str:
    """Return the text under a heading of the second level."""
    return text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def docker_lines(document: str) -> list[str]:
    """Return the lines of a document's blocks that begin with `docker`."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [line for _, block in blocks(text) for line in block.splitlines() if line.startswith("docker ")]


@dataclass
class Reader:
    """A reader's shell, database and `levelsync serve`."""

    folder: Path
    database_url: str
    environment: dict[str, str]
    replaced: dict[str, str]
    """What the document writes, and its replacement here."""
    shown: list[str] = field(default_factory=list)
    """What each block of the shell printed, in order."""
    found: list[list[tuple[Any, ...]]] = field(default_factory=list)
    """What each block of SQL found, in order."""

    def __post_init__(self) -> None:
        self.log = self.folder / "serve.log"
        command = [str(BIN / "levelsync"), "serve"]
        self.serve = ServerProcess(command, self.log, stop_seconds=12, environment=self.environment, folder=self.folder)

    async def follow(self, language: str, text: str) -> None:
        """Run one block."""
        if language == "sql":
            self.found.append(await application.rows(self.database_url, text))
        elif text.strip() == "levelsync serve":
            await self.start()
        else:
            self.shown.append(await self.run(text))

    async def start(self) -> None:
        """Start or restart `levelsync serve`, and wait until it is ready."""
        self.serve.stop()
        self.serve.start()
        url = f"http://127.0.0.1:{self.environment['LEVELSYNC_HTTP_PORT']}/readyz"

        async def ready() -> bool:
            if not self.serve.running:
                raise RuntimeError(f"levelsync ended while it started:\n{self.log.read_text()}")
            return (await asyncio.to_thread(http_get, url))[0] == 200

        await eventually(ready, 60)

    async def run(self, text: str) -> str:
        """Run lines of a shell; returns what they print.

        Raises:
            AssertionError: the exit code is not 0, or not that of `# exit N`.
        """
        expected = _EXIT.search(text)
        for written, here in self.replaced.items():
            text = text.replace(written, here)
        shell = await asyncio.create_subprocess_exec(
            *("bash", "-euo", "pipefail", "-c", text),
            cwd=self.folder,
            env=self.environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await asyncio.wait_for(shell.communicate(), 90)
        said = out.decode()
        assert shell.returncode == (int(expected[1]) if expected else 0), f"{text}\n{said}"
        return said
