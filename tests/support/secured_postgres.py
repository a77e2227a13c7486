"""A PostgreSQL with `hostssl`, scram and certificates, as a cloud provider has it."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from service.local import EmbeddedPostgres
from service.local.postgres import account_for, let_through
from tests.support.certificates import Authority, Pair
from tests.support.servers import POSTGRES_SETTINGS, Postgres, system_programs

PASSWORD = "pq@zs7/w#rq9?%&=+é"  # noqa: S105 - of the tests only, and as awkward as it can be
ENCODED = quote(PASSWORD, safe="")
_HBA = """
local   all all               scram-sha-256
host    all postgres  127.0.0.1/32 scram-sha-256
hostssl all certified 127.0.0.1/32 cert
hostssl all all       127.0.0.1/32 scram-sha-256
host    all plain     127.0.0.1/32 scram-sha-256
"""
_USERS = [f"CREATE ROLE {user} LOGIN PASSWORD '{PASSWORD}'" for user in ("someone", "plain", "certified")]
_USERS += [f'CREATE DATABASE "{user}"' for user in ("someone", "plain")]


@dataclass(frozen=True)
class Secured:
    """Its address and certificates. Users: `someone` (TLS only), `plain` (either), `certified` (by certificate)."""

    port: int
    socket: Path
    authority: Path
    foreign: Path
    certified: Pair
    encrypted: Pair


@contextmanager
def secured_postgres() -> Iterator[Secured]:
    """Start it with a certificate that is valid for the name localhost, not for 127.0.0.1."""
    folder = Path(tempfile.mkdtemp(prefix="levelsync-secured-"))
    authority, foreign = Authority(folder), Authority(folder / "foreign", "foreign")
    pair = authority.sign("server", "localhost")
    (folder / "pg_hba.conf").write_text(_HBA, encoding="utf-8")
    if os.geteuid() == 0:
        (folder / "socket").mkdir()
        let_through(folder)
        for path in (pair.key, folder / "socket"):
            os.chown(path, *account_for(folder))
    server = _server(folder, pair)
    try:
        with server:
            postgres = Postgres(server.url, server=server)
            for statement in _USERS:
                asyncio.run(postgres.execute(statement))
            yield Secured(
                server.port,
                folder / "socket",
                authority.certificate,
                foreign.certificate,
                authority.sign("certified"),
                authority.sign("certified", file="encrypted", password="of the key"),  # noqa: S106 - of the tests only
            )
    finally:
        shutil.rmtree(folder)


def _server(folder: Path, pair: Pair) -> EmbeddedPostgres:
    (folder / "socket").mkdir(exist_ok=True)
    programs = system_programs()
    assert programs is not None, "ask system_programs() first"
    settings = POSTGRES_SETTINGS | {
        "ssl": "on",
        "ssl_cert_file": str(pair.certificate),
        "ssl_key_file": str(pair.key),
        "ssl_ca_file": str(folder / "authority.pem"),
        "hba_file": str(folder / "pg_hba.conf"),
        "unix_socket_directories": str(folder / "socket"),
    }
    return EmbeddedPostgres(folder / "data", server_settings=settings, programs=programs)
