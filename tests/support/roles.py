"""The roles of deploy/postgresql/rights.sql, and other ways of the service to its servers."""

from __future__ import annotations

import os
import subprocess
import sys
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch
from urllib.parse import urlsplit

from aiokafka.client import AIOKafkaClient
from aiokafka.protocol.admin import CreateAclsRequest, DeleteAclsRequest

from tests.support import application, kafka_tools
from tests.support.apache_kafka import ApacheKafka, GuardedKafka
from tests.support.pgbouncer import pgbouncer
from tests.support.repository import ROOT

RIGHTS = (ROOT / "deploy" / "postgresql" / "rights.sql").read_text(encoding="utf-8")
ACLS = "acls"
"""The service signs in to Kafka as a user who may do what deploy/kafka/acls.sh grants."""
GROUP = "levelsync"
_ROLES = ("migrator", "runtime", "reader")


@dataclass
class Roles:
    """URLs of one database: the superuser's, and each role's."""

    superuser: str
    suffix: str

    def __post_init__(self) -> None:
        self.migrator, self.runtime, self.reader = map(self._url, _ROLES)

    def name(self, role: str) -> str:
        """Return a role's name on this server, whose databases share all roles."""
        return f"levelsync_{role}_{self.suffix}"

    async def grant(self) -> None:
        """Run rights.sql, as an operator does."""
        statements = RIGHTS
        for role in _ROLES:
            statements = statements.replace(f"levelsync_{role}", self.name(role))
        passwords = "".join(f"ALTER ROLE {self.name(role)} PASSWORD 'x';" for role in _ROLES)
        await application.execute(self.superuser, statements + passwords)

    def _url(self, role: str) -> str:
        place = urlsplit(self.superuser).netloc.rpartition("@")[2]
        return urlsplit(self.superuser)._replace(netloc=f"{self.name(role)}:x@{place}").geturl()


@asynccontextmanager
async def roles(url: str) -> AsyncIterator[Roles]:
    """Create the three roles with their rights in the database at `url`, and drop them at the end."""
    made = Roles(url, uuid.uuid4().hex[:12])
    await made.grant()
    try:
        yield made
    finally:
        for role in _ROLES:
            await application.execute(url, f"REASSIGN OWNED BY {made.name(role)} TO CURRENT_USER",
                               f"DROP OWNED BY {made.name(role)}", f"DROP ROLE {made.name(role)}")  # fmt: skip


THROUGH = "LEVELSYNC_TEST_THROUGH"
Way = Callable[[str], Awaitable[str]]
"""Accepts the superuser's URL of a database, and returns the service's."""
_SUFFIX = "of_the_tests"


@contextmanager
def way_through(name: str, server_url: str) -> Iterator[Way]:
    """Yield the way `name`: `pgbouncer` in session mode, `runtime` as the role of rights.sql, or '' for none."""
    if name == "pgbouncer":
        with pgbouncer(server_url, "session", {"default_pool_size": "20"}) as place:
            yield _at(place)
    elif name == "runtime":
        yield _as_runtime
    else:
        assert name in {"", ACLS}, f"{THROUGH}={name} is no way"
        yield _unchanged


def _at(place: str) -> Way:
    async def through(url: str) -> str:
        return urlsplit(url)._replace(netloc=place).geturl()

    return through


async def _as_runtime(url: str) -> str:
    """Let the tests' set-up become the owner for a transaction. The role's own rights stay the same."""
    made = Roles(url, _SUFFIX)
    await made.grant()
    role = made.name("runtime")
    await application.execute(url, f"ALTER ROLE {role} NOINHERIT", f'GRANT "{urlsplit(url).username}" TO {role}')
    return made.runtime


async def _unchanged(url: str) -> str:
    return url


@contextmanager
def guarded_access(server: GuardedKafka) -> Iterator[dict[str, Any]]:
    """Grant what acls.sh grants, and yield the settings of the user who has it.

    The tests' own clients use the same broker address without a login, and reach the operator's listener.
    """
    grant(server, GROUP)
    guarded = server.access["kafka_bootstrap_servers"]
    make = AIOKafkaClient.__init__

    def make_elsewhere(self: AIOKafkaClient, **options: Any) -> None:
        if options["bootstrap_servers"] == guarded and options.get("security_protocol", "PLAINTEXT") == "PLAINTEXT":
            options["bootstrap_servers"] = server.bootstrap_servers
        make(self, **options)

    with patch.object(AIOKafkaClient, "__init__", make_elsewhere):
        yield server.access | {"kafka_group_id": GROUP, "kafka_create_topics": False}


Acl = tuple[int, str | None, int, int, int]
"""Kafka's number of a kind of resource, its name, and Kafka's numbers of a pattern, an operation and a permission."""
EVERY_ACL: Acl = (1, None, 1, 1, 1)


async def change_acl(server: ApacheKafka, request: type[CreateAclsRequest | DeleteAclsRequest], acl: Acl) -> None:
    """Create or delete ACLs of the user `levelsync`."""
    kind, name, pattern, operation, permission = acl
    rule = request(kind, name, pattern, "User:levelsync", "*", operation, permission)
    async with kafka_tools.admin(server.bootstrap_servers) as client:
        await client._send_request_to_node(client._client.get_random_node(), rule)


def grant(server: ApacheKafka, group: str) -> None:
    """Run acls.sh for the user `levelsync`."""
    script = [str(ROOT / "deploy" / "kafka" / "acls.sh"), server.bootstrap_servers, "User:levelsync", group]
    run = subprocess.run(  # noqa: S603 - our own script
        script,
        env=os.environ | {"KAFKA_ACLS": f"{sys.executable} {kafka_tools.__file__} kafka-acls.sh"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
