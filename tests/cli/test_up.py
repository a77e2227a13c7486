"""`levelsync up` keeps everything in one folder and leaves no process behind; `levelsync demo` runs the main job."""

from __future__ import annotations

import json
import re
import signal
import socket
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import psutil
import pytest

from tests.support.process import Up, assert_refused, levelsync, up
from tests.support.waiting import eventually

EVENT = ("publish", "leveled-up", "--user", "999", "--specialization", "PLAYER", "--to-level", "5")


@pytest.fixture
def folder() -> Iterator[Path]:
    """A new folder outside pytest's: as root, PostgreSQL runs under another account, which may not enter pytest's."""
    with tempfile.TemporaryDirectory(prefix="levelsync-test-up-") as made:
        yield Path(made) / "here"


def letters(folder: Path) -> int:
    """Return how many dead letters another command in the folder counts."""
    run = levelsync("dead-letters", "list", "--json", cwd=folder)
    assert run.returncode == 0, run.stderr
    return int(json.loads(run.stdout)["total"])


def settings_of(folder: Path) -> dict[str, str]:
    lines = (folder / ".levelsync" / "up.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines)


@pytest.mark.soak
async def test_everything_is_found_in_the_folder_and_data_survives_a_restart(folder: Path) -> None:
    """PostgreSQL keeps its data, though the broker starts empty. SIGKILL leaves no process and no lock."""
    with up(folder, "--port", "0") as first:
        await first.ready()
        assert letters(folder) == 0
        assert levelsync(*EVENT, cwd=folder).returncode == 0
        await eventually(lambda: letters(folder) == 1)
        check_what_it_wrote(first)
        check_second_one_is_refused(folder)
        children = first.children()
        assert children
        assert first.end(signal.SIGINT) == 130
        assert [child for child in children if child.is_running()] == []
        assert not (folder / ".levelsync" / "up.env").exists()
    with up(folder, "--port", "0") as second:
        await second.ready()
        assert letters(folder) == 1
        assert levelsync(*EVENT, cwd=folder).returncode == 0
        await eventually(lambda: letters(folder) == 2)
        doctor = levelsync("doctor", cwd=folder)
        assert doctor.returncode == 0, doctor.stdout
        children = second.children()
        second.end(signal.SIGKILL)
        gone, alive = psutil.wait_procs(children, timeout=20)
        assert (len(gone), alive) == (len(children), [])
    with up(folder, "--port", "0", "--reset") as third:
        await third.ready()
        assert "Created 200 sample users" in third.stderr
        assert third.end(signal.SIGTERM) == 0


def check_what_it_wrote(running: Up) -> None:
    """Check the token, the URL, and that only the owner can read up.env and the secret."""
    found = settings_of(running.folder)
    names = ("DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "HTTP_PORT", "JWT_SECRET")
    assert set(found) == {f"LEVELSYNC_{name}" for name in names}
    token = re.search(r"eyJ\S+", running.stdout)
    assert token is not None
    claims: dict[str, Any] = jwt.decode(token[0], found["LEVELSYNC_JWT_SECRET"], algorithms=["HS256"])
    assert claims["roles"] == ["admin"]
    assert f"http://127.0.0.1:{found['LEVELSYNC_HTTP_PORT']}" in running.stdout
    assert "neither librdkafka's consumer groups nor kcat 1.7" in running.stdout
    for name in ("up.env", "jwt-secret"):
        mode = (running.folder / ".levelsync" / name).stat().st_mode
        assert stat.S_IMODE(mode) == 0o600, name


def check_second_one_is_refused(folder: Path) -> None:
    """Check that a second `up` is refused and leaves the file of the first."""
    run = levelsync("up", cwd=folder)
    assert_refused(run, 2, "running")
    assert settings_of(folder)


def test_a_taken_port_is_exit_2_before_anything_starts(folder: Path) -> None:
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        run = levelsync("up", "--port", str(port), cwd=folder)
    assert_refused(run, 2, f"127.0.0.1:{port}", "--port")
    assert not (folder / ".levelsync" / "postgres").exists()


def test_the_demo_ends_with_tables_that_agree(tmp_path: Path) -> None:
    """It shows drift before and none after, the history, a dead letter, and that repetition changes nothing."""
    run = levelsync("demo", cwd=tmp_path, env={"LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"})
    assert run.returncode == 0, run.stdout + run.stderr
    before, rest = run.stdout.split("levelsync raises the other table")
    after, damaged = rest.split("Somebody edits the tables by hand")
    assert " NO " in before
    assert " NO " not in after
    for part in ("5 → 6", "ProgressLeveledUp /app/progress sample-", "invalid:", "no row changed"):
        assert part in after
    assert 'outcome="created",type="progress.leveled-up.v1"' in damaged
    assert ", 0 differ" in damaged
    _assert_repaired(damaged)
    assert "\x1b" not in run.stdout
    assert list(tmp_path.iterdir()) == []


def _assert_repaired(shown: str) -> None:
    """Check that the dry run finds four damaged pairs, the run heals them, and the next dry run finds none."""
    damage, found, healed, nothing = re.split(r"A dry run finds|The same run for real|A second dry run", shown)
    assert damage.count(" NO ") == 4
    assert found.count(" confirmed ") == 4
    assert (_count(found, "mismatched"), _count(found, "missing license"), _count(found, "healed")) == (3, 1, 0)
    assert _count(healed, "healed") == 4
    assert " NO " not in healed
    assert healed.count(" reconcile ") == 4  # one row of history for each
    assert _count(nothing, "scanned") == _count(nothing, "matching")


def _count(report: str, name: str) -> int:
    match = re.search(rf"^  {name} +(\d+)$", report, re.MULTILINE)
    assert match, report
    return int(match[1])
