"""Exit codes: 2 for what does not exist, 130 for Ctrl-C, 3 where something is gone or stopped, 70 for a defect."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from service.cli import app
from service.settings import Settings
from tests.support.preloaded import Command
from tests.support.process import Make, assert_refused, clean, environment, levelsync
from tests.support.tables import execute
from tests.support.tokens import PREFIX, token

NOBODY = 4_242_424_242
_ADD_LETTER = """
    INSERT INTO levelsync.dead_letters (topic, partition, "offset", record_timestamp, value, reason)
    VALUES ('progress.leveled-up', 0, 1, 0, '{}', 'malformed')
"""


@pytest.fixture
async def env(engine: AsyncEngine, settings: Settings) -> Mapping[str, str]:
    """The environment of a command whose database has one dead letter."""
    await execute(engine, _ADD_LETTER)
    return environment(settings)


MISSING = {
    f"sync {NOBODY} --all": NOBODY,
    f"sync {NOBODY} --specialization PLAYER --level 2": NOBODY,
    f"reconcile --user {NOBODY}": NOBODY,
    "reconcile --specialization CHEF": "CHEF",
    "drift --specialization CHEF": "CHEF",
    "runs 00000000-0000-4000-8000-000000000000": "00000000-0000",
    "runs 00000000-0000-4000-8000-000000000000 --issues": "00000000-0000",
    "runs 00000000-0000-4000-8000-000000000000 --cancel": "00000000-0000",
    "dead-letters show 999": 999,
    "dead-letters replay 1 999": 999,
    "dead-letters discard 1 999 --yes": 999,
}


def test_what_does_not_exist_is_exit_2_and_named(env: Mapping[str, str]) -> None:
    for command, named in MISSING.items():
        assert_refused(levelsync(*command.split(), env=env), 2, named)


@pytest.mark.parametrize("command", ["dead-letters discard --all", "erase 42"])
async def test_ctrl_c_at_a_question_is_130(env: Mapping[str, str], command: str) -> None:
    """Even for one letter. "no" is 1."""
    for answer, code in ((b"\x03", 130), (b"n\n", 1), (b"\x04", 1)):
        assert await asyncio.to_thread(answered, command.split(), env, answer) == code


def answered(arguments: list[str], env: Mapping[str, str], answer: bytes) -> int:
    """Run a command at a terminal, answer its question, and return the exit code."""
    terminal, of_the_command = os.openpty()
    with open(of_the_command, "r+b", buffering=0) as stream:  # noqa: PTH123 - a descriptor
        command = Command(["levelsync", *arguments], clean(env), None, (stream, stream, stream))
    shown = b""
    while b"[y/N]" not in shown:
        shown += os.read(terminal, 1000)
    time.sleep(0.05)  # the prompt is written before the terminal is read
    os.write(terminal, answer)
    code = command.wait(30)
    os.close(terminal)
    return code


_HEARS_CTRL_C = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from service.__main__ import main
main()
"""
"""A shell starts what runs in the background with Ctrl-C ignored, and a test of it may run so."""


@pytest.mark.usefixtures("topics")
@pytest.mark.parametrize(
    ("command", "begun"),
    [pytest.param("demo", "The application writes", marks=pytest.mark.soak), ("reconcile", "requested run")],
)
async def test_ctrl_c_during_a_command_is_130(settings: Settings, tmp_path: Path, command: str, begun: str) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", _HEARS_CTRL_C, command),
        env=clean(environment(settings)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=tmp_path,
    )
    assert process.stdout is not None
    shown = b""
    while begun.encode() not in shown:
        piece = await process.stdout.read(1000)
        assert piece, shown
        shown += piece
    process.send_signal(signal.SIGINT)
    await process.communicate()
    assert process.returncode == 130


async def test_ctrl_c_ends_a_read_of_a_silent_pipe() -> None:
    """asyncio's own handler would wait for input."""
    script = """if True:
        import asyncio, sys
        from service.cli import context
        async def read():
            with context.ctrl_c_at_once():
                print("reads", flush=True)
                sys.stdin.buffer.read1()
        asyncio.run(read())
    """
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", script, env=clean(), stdin=pipe, stdout=pipe, stderr=pipe
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"reads\n"
    process.send_signal(signal.SIGINT)
    assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGINT


@pytest.mark.parametrize("command", ["drift", "runs", "doctor", "migrate", "reconcile", "dead-letters list", "audit"])
def test_a_folder_where_up_has_stopped_says_so(tmp_path: Path, command: str) -> None:
    """Whether `up` stopped or was killed, unless servers are configured."""
    (tmp_path / ".levelsync").mkdir()
    (tmp_path / ".levelsync" / "up.lock").touch()
    for settings in (None, "LEVELSYNC_DATABASE_URL=postgresql://nobody@127.0.0.1:1/none\n"):
        if settings is not None:
            (tmp_path / ".levelsync" / "up.env").write_text(settings)
        run = levelsync(*command.split(), cwd=tmp_path)
        assert (run.returncode, "levelsync up has run in" in run.stderr) == (3, True), run.stderr
    if command == "drift":
        elsewhere = {"LEVELSYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:2/none"}
        assert "127.0.0.1:2" in levelsync("drift", cwd=tmp_path, env=elsewhere).stderr


COMMANDS = ["publish --file pyproject.toml", "drift", "sync 1 --all", "reconcile", "runs", "audit", "erase 1", "doctor"]
COMMANDS += ["publish leveled-up --user 1 --specialization PLAYER --to-level 2", "token --role admin", "migrate"]
COMMANDS += ["serve", "up", *(f"dead-letters {verb}" for verb in ("list", "show 1", "replay 1", "discard 1"))]


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(("fault", "code"), [(ZeroDivisionError, 70), (KeyboardInterrupt, 130)])
def test_a_defect_is_70_and_ctrl_c_is_130_in_every_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, command: str, fault: type[BaseException], code: int
) -> None:
    def fail(**_: object) -> None:
        raise fault

    monkeypatch.setattr("service.cli.context.settings", fail)
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(app, command.split()).exit_code == code


GONE = "the table specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set"
LEVELS_COMMANDS = ["drift", "drift --specialization PLAYER", "sync 1 --specialization PLAYER", "sync 1 --all"]
LEVELS_COMMANDS += ["reconcile", "reconcile --execute --specialization PLAYER"]


@pytest.mark.usefixtures("topics")
async def test_the_column_disappears_under_a_running_service(
    engine: AsyncEngine, settings: Settings, levelsync_process: Make
) -> None:
    """Exit 3 or 503 with one sentence, and no advice to look for a role or to retry."""
    process = levelsync_process()
    await process.start()
    await execute(engine, "ALTER TABLE specializations DROP COLUMN max_levels")
    env = environment(settings, HTTP_PORT=str(process.url).rpartition(":")[2])
    for command in LEVELS_COMMANDS:
        run = levelsync(*command.split(), env=env)
        assert (run.returncode, run.stderr.count("\n"), GONE in run.stderr) == (3, 1, True), run.stderr
    doctor = json.loads(levelsync("doctor", "--json", env=env).stdout)
    found = {one["check"]: (one["verdict"], GONE in one["detail"]) for one in doctor["checks"]}
    assert {found["Application's columns"], found["Specializations"]} == {("FAIL", True)}
    async with httpx.AsyncClient(
        base_url=f"{process.url}{PREFIX}", headers={"Authorization": f"Bearer {token(settings, 'admin')}"}, timeout=20
    ) as client:
        answers = [
            await client.get("/desync-issues"),
            await client.post("/user/1", json={"specialization": "PLAYER"}),
            await client.post("/user/1/all", json={}),
            await client.post("/all", json={}),
        ]
    assert [(one.status_code, GONE in one.json()["detail"]) for one in answers] == [(503, True)] * 4


async def test_another_missing_column_is_named(engine: AsyncEngine, settings: Settings) -> None:
    await execute(engine, "ALTER TABLE specialization_progress DROP COLUMN current_level CASCADE")
    for command in LEVELS_COMMANDS[:3]:
        run = levelsync(*command.split(), env=environment(settings))
        assert (run.returncode, run.stderr.count("\n")) == (3, 1), run.stderr
        assert "current_level" in run.stderr
        assert "levelsync doctor" in run.stderr


def test_a_defect_is_70_with_its_traceback(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
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
