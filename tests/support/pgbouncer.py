"""Debian's PgBouncer in front of a PostgreSQL of the tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote, urlsplit

from service.local.postgres import account_for, let_through
from service.local.process import HOST, ServerProcess, answers, free_port

PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
_START_SECONDS = 20


@contextmanager
def pgbouncer(server_url: str, mode: str, more: Mapping[str, str] = {}) -> Iterator[str]:
    """Start it in front of the server of `server_url`; yields `user:password@host:port` for URLs through it."""
    assert PROGRAM is not None, "ask PROGRAM first"
    server = urlsplit(server_url)
    folder = Path(tempfile.mkdtemp(prefix="levelsync-pgbouncer-"))
    port = free_port()
    settings = {
        "listen_addr": HOST,
        "listen_port": port,
        "unix_socket_dir": "",
        "auth_type": "plain",
        "auth_file": folder / "users.txt",
        "pool_mode": mode,
        "default_pool_size": 10,
        "max_client_conn": 500,
        **more,
    }
    lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
    configuration = folder / "pgbouncer.ini"
    databases = f"[databases]\n* = host={server.hostname} port={server.port}\n"
    configuration.write_text(f"{databases}[pgbouncer]\n{lines}", encoding="utf-8")
    (folder / "users.txt").write_text(f'"{server.username}" "{unquote(server.password or "")}"\n', encoding="utf-8")
    account = None
    if os.geteuid() == 0:  # it refuses to run as root
        let_through(folder)
        account = account_for(folder)
        for path in (configuration, folder / "users.txt"):
            os.chown(path, *account)
    process = ServerProcess([PROGRAM, str(configuration)], folder / "log", user=account)
    process.start()
    try:
        process.wait_until(lambda: answers(port), _START_SECONDS)
        yield f"{server.username}:{server.password}@{HOST}:{port}"
    finally:
        ended = "" if process.running else process.log_tail()
        process.stop()
        shutil.rmtree(folder)
    assert not ended, f"PgBouncer ended before the tests:\n{ended}"
