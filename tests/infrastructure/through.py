"""Other ways for the service to its database: `make soak` runs the tests of the server through each of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from tests.database.pgbouncer import pgbouncer
from tests.database.roles import Roles
from tests.migrations import live

THROUGH = "LEVELSYNC_TEST_THROUGH"
Way = Callable[[str], Awaitable[str]]
"""Takes the superuser's URL of a database, and gives the service's."""
_SUFFIX = "of_the_tests"


@contextmanager
def way_through(name: str, server_url: str) -> Iterator[Way]:
    """Give the way called `name`: `pgbouncer` in session mode, `runtime` as the role of rights.sql, or '' for none."""
    if name == "pgbouncer":
        with pgbouncer(server_url, "session", {"default_pool_size": "60"}) as place:
            yield _at(place)
    elif name == "runtime":
        yield _as_runtime
    else:
        assert not name, f"{THROUGH}={name} is no way"
        yield _unchanged


def _at(place: str) -> Way:
    async def through(url: str) -> str:
        return urlsplit(url)._replace(netloc=place).geturl()

    return through


async def _as_runtime(url: str) -> str:
    """The tests' own hand may become the owner for a transaction: what the role may do by itself stays as it is."""
    made = Roles(url, _SUFFIX)
    await made.grant()
    role = made.name("runtime")
    await live.execute(url, f"ALTER ROLE {role} NOINHERIT", f'GRANT "{urlsplit(url).username}" TO {role}')
    return made.runtime


async def _unchanged(url: str) -> str:
    return url
