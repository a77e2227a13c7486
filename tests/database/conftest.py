"""The servers of the database tests."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.secured_postgres import PASSWORD, Secured, secured_postgres
from tests.support.servers import system_programs


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    """The system's PostgreSQL with TLS. The wheel's has none."""
    if system_programs() is None:
        pytest.skip("needs a PostgreSQL with TLS: none of the system")
    with secured_postgres() as server, ThreadPoolExecutor(1) as pool:
        literal = PASSWORD.replace("'", "''")
        for user in ("someone", "plain", "certified"):
            statement = f"CREATE ROLE {user} LOGIN PASSWORD '{literal}'"
            pool.submit(asyncio.run, server.server.execute(statement)).result()
        for user in ("someone", "plain"):
            pool.submit(asyncio.run, server.server.execute(f'CREATE DATABASE "{user}"')).result()
        yield server
