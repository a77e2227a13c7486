"""docs/adopt.md, followed block by block on a copy of the application's newest database."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.local.process import free_port
from tests.support import application
from tests.support.reader import BIN, Reader, blocks
from tests.support.repository import ROOT, read
from tests.support.servers import Kafka
from tests.support.states import ADMIN, LICENSE_DEFAULTS, MAX_LEVELS, THOUSANDS, E
from tests.support.tokens import APPLICATION_SECRET, application_token

TEXT = read("docs/adopt.md")
BLOCKS = blocks(TEXT)


@pytest.fixture
async def reader(live_url: str, kafka: Kafka, tmp_path: Path) -> AsyncIterator[Reader]:
    """A reader with a database, brokers and a key, and with short waits."""
    await application.execute(live_url, THOUSANDS)
    port = str(free_port())
    environment = {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ADMIN_TOKEN": application_token(ADMIN),
        "LEVELSYNC_HTTP_PORT": port,
        "LEVELSYNC_RECONCILE_GRACE": "300ms",
    }
    replaced = {
        "postgresql://app:PASSWORD@db.example.org:5432/app": live_url,
        "kafka.example.org:9092": kafka.bootstrap_servers,
        "THE_APPLICATION_S_SECRET_KEY": APPLICATION_SECRET,
        "localhost:8000": f"127.0.0.1:{port}",
        "PATH_OF_THE_CHECKOUT": str(ROOT),
    }
    reading = Reader(tmp_path, live_url, environment, replaced)
    yield reading
    reading.serve.stop()
    print(reading.log.read_text())  # noqa: T201 - pytest shows it for a test that failed


@pytest.mark.soak
@pytest.mark.timeout(300)  # twenty commands in sequence
@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not on this machine")
@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize("state", [E], ids=str)
async def test_the_guide_works_as_it_is_written(reader: Reader) -> None:
    for language, text in BLOCKS:
        if text.startswith("alembic"):
            reader.serve.stop()  # "Stop `levelsync serve`"
        await reader.follow(language, text)
        if text.startswith("echo"):
            await reader.start()  # "Start `levelsync serve` again"
    kinds, twice, strangers, removed, drift, arrived = reader.found
    assert sorted(kinds) == [("mismatched", 20), ("missing_progress", 5400)]
    assert sorted(twice) == [(user, "GANCUJU_PLAYER", 2, [level, level]) for user, level in ((5, 2), (6, 1), (7, 2))]
    assert strangers == [("LFA_PLAYER_PRE", 1)]
    assert [row[0] for row in removed] == ["specialization_progress"] * 3
    assert [row[0] for row in drift] == [user for user in (20, 40, 60, 80, 100) for _ in range(4)]
    assert [row[:4] for row in arrived] == [(20, 3, 1, 3)]
    assert arrived[0][4].startswith("ProgressLeveledUp ")
    assert await application.value(reader.database_url, "SELECT to_regclass('levelsync.fences')") is None
    assert await application.value(reader.database_url, "SELECT count(*) FROM levelsync.removed_rows") == 3
    assert await application.value(reader.database_url, "SELECT count(*) FROM specialization_progress") == 5784


def test_the_guide_and_the_states_have_the_same_settings() -> None:
    given = dict(re.findall(r"^LEVELSYNC_(\w+)='(.*)'$", TEXT, re.MULTILINE))
    assert json.loads(given["MAX_LEVELS"]) == MAX_LEVELS
    assert json.loads(given["LICENSE_DEFAULTS"]) == LICENSE_DEFAULTS


def test_every_block_of_the_guide_is_run() -> None:
    assert {language for language, _ in BLOCKS} == {"sh", "sql"}
