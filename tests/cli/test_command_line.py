"""The command line as a whole: its imports, streams and exit codes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from tests.support.process import Result, assert_refused, clean, levelsync

SLOW = {"sqlalchemy", "asyncpg", "aiokafka", "faststream", "alembic"}
SLOW |= {"uvicorn", "starlette", "pydantic", "jwt", "structlog"}
NOWHERE = {
    "LEVELSYNC_DATABASE_URL": "postgresql://nobody:hidden-password@127.0.0.1:1/none",
    "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "LEVELSYNC_HTTP_PORT": "1",
}
ONE_EVENT = ("publish", "leveled-up", "--user", "42", "--specialization", "PLAYER", "--to-level", "5")
_EVENT = " ".join(ONE_EVENT[1:])
WRONG_USE = {
    "nonsense": "No such command",
    "publish": "",
    "publish --file /no/such/file": "/no/such/file",
    "publish leveled-up --user forty --specialization PLAYER --to-level 5": "--user",
    "publish leveled-up --user 0 --specialization PLAYER --to-level 5": "--user",
    f"publish {_EVENT} --from-level 5": "to_level must be above from_level",
    f"publish {_EVENT} --time 1999-12-31": "2000",
    f"publish {_EVENT} --time yesterday": "--time",
    f"publish --wait {_EVENT}": "",
    f"publish {_EVENT} --timeout 9s": "",
    f"publish {_EVENT} --wait --timeout soon": "",
    "schema --out /dev/null/below": "/dev/null",
    "serve --roles apply,cook": "cook",
    "token --role king": "king",
    "token --role admin --ttl soon": "soon",
    "dead-letters list --reason bad_mood": "bad_mood",
    "dead-letters list --state lost": "lost",
    "dead-letters list --since yesterday": "yesterday",
    "dead-letters replay": "",
    "dead-letters replay 1 --all": "",
    "dead-letters replay --reason bored": "bored",
    "dead-letters discard": "",
    "audit --since then": "then",
    "audit --json --csv": "",
    "drift --json --csv": "",
    "dead-letters list --json --csv": "",
    "runs 3f301f46-108e-4aec-ac7d-bb07d4badd90 --issues --json --csv": "",
    "runs --csv": "",
}
"""Commands that must be refused, and a word of the message."""


def test_help_imports_nothing_slow() -> None:
    """Heavy libraries are imported only inside commands."""
    script = "import sys, service.cli; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)  # noqa: S603
    loaded = run.stdout.split()
    assert "typer" in loaded
    assert SLOW & set(loaded) == set()


def test_an_unmigrated_database_says_what_to_run(empty_database_url: str) -> None:
    for command in ("drift", "sync 42 --all", "runs", "dead-letters list", "erase 42 --yes"):
        run = levelsync(*command.split(), env={"LEVELSYNC_DATABASE_URL": empty_database_url})
        assert (run.returncode, run.stderr.count("\n")) == (3, 1), command
        assert run.stderr.endswith("Run: levelsync migrate\n")


def test_version_names_the_distribution() -> None:
    run = levelsync("--version")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith("levelsync ")


def test_shell_completion_can_be_shown() -> None:
    """The command finds the shell that started it, so bash must not replace itself by the command."""
    program = Path(sys.executable).with_name("levelsync")
    shell = ["bash", "-c", '"$0" --show-completion; exit $?', str(program)]
    run = subprocess.run(shell, capture_output=True, text=True, check=True)  # noqa: S603
    assert "_levelsync_completion" in run.stdout


@pytest.mark.parametrize("command", WRONG_USE)
def test_wrong_use_is_exit_2_without_a_traceback(command: str) -> None:
    """An empty selection of dead letters is never read as everything."""
    done = CliRunner().invoke(app, command.split(), env=NOWHERE)
    assert (done.exit_code, done.stdout) == (2, "")
    assert WRONG_USE[command] in done.stderr
    assert done.stderr.strip()
    assert "Traceback" not in done.stderr


def test_each_bad_setting_is_named_on_its_own_line() -> None:
    bad = {"LEVELSYNC_HTTP_PORT": "x", "LEVELSYNC_DATABASE_URL": "mysql://root:hidden-password@localhost/x"}
    run = levelsync("doctor", env=bad)
    assert run.returncode == 2
    named = [name for name in bad if any(name in line for line in run.stderr.splitlines())]
    assert named == list(bad)
    assert len(run.stderr.splitlines()) == 2
    assert "hidden-password" not in run.stdout + run.stderr


def test_an_unknown_setting_is_a_warning_with_the_nearest_name() -> None:
    run = levelsync("token", "--role", "admin", env={"LEVELSYNC_JWT_SECRET": "s" * 32, "LEVELSYNC_HTTP_PROT": "1"})
    assert run.returncode == 0
    assert "LEVELSYNC_HTTP_PROT" in run.stderr
    assert "LEVELSYNC_HTTP_PORT" in run.stderr
    assert run.stdout.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "variable"),
    [
        (ONE_EVENT, "LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS"),
        (("migrate",), "LEVELSYNC_DATABASE_URL"),
        (("sync", "1", "--all"), "LEVELSYNC_DATABASE_URL"),
        (("dead-letters", "list"), "LEVELSYNC_DATABASE_URL"),
        (("dead-letters", "show", "1", "--json"), "LEVELSYNC_DATABASE_URL"),
    ],
)
def test_a_component_that_does_not_answer_is_exit_3_with_what_to_do(arguments: tuple[str, ...], variable: str) -> None:
    """One line has the address, the variable that sets it, and the command that starts everything."""
    run = levelsync(*arguments, env=NOWHERE)
    assert_refused(run, 3)
    assert len(run.stderr.splitlines()) == 1
    for part in ("127.0.0.1:1", variable, "levelsync up"):
        assert part in run.stderr
    assert "hidden-password" not in run.stderr


def test_settings_come_from_the_file_that_up_wrote(tmp_path: Path) -> None:
    (tmp_path / ".levelsync").mkdir()
    (tmp_path / ".levelsync" / "up.env").write_text("LEVELSYNC_KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:2\n")
    assert "127.0.0.1:2" in levelsync(*ONE_EVENT, cwd=tmp_path).stderr
    assert "127.0.0.1:1" in levelsync(*ONE_EVENT, cwd=tmp_path, env=NOWHERE).stderr


_HIDDEN = """
import contextlib, io, json, sys
sys.modules["psutil"] = None
from service.__main__ import main
for line in sys.stdin:
    sys.argv[1:] = line.split()
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        try:
            main()
        except SystemExit as end:
            code = end.code
    print(json.dumps([line, code, out.getvalue(), err.getvalue()]))
"""


def test_without_the_embedded_servers_only_up_and_demo_say_what_to_install() -> None:
    """As in the image, where the extra `embedded` is not installed."""
    commands = ["migrate", "drift", "dead-letters list", "runs", " ".join(ONE_EVENT), "up", "demo"]
    done = subprocess.run(  # noqa: S603 - our own
        [sys.executable, "-c", _HIDDEN],
        input="\n".join(commands),
        env=clean() | NOWHERE,
        capture_output=True,
        text=True,
        check=True,
    )
    *others, up, demo = (Result(*json.loads(line)) for line in done.stdout.splitlines())
    assert len(others) == 5
    for run in others:
        assert_refused(run, 3)
        assert "pip install" not in run.stderr
    for run in (up, demo):
        assert_refused(run, 2, "pip install 'levelsync[service,embedded]'")
