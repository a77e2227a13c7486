"""The roles of deploy/postgresql/rights.sql on a server of the tests."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.house.compose import ROOT
from tests.migrations import live

RIGHTS = (ROOT / "deploy" / "postgresql" / "rights.sql").read_text(encoding="utf-8")
_ROLES = ("migrator", "runtime", "reader")


@dataclass(frozen=True)
class Roles:
    """URLs of one database: the superuser's, and each role's."""

    superuser: str
    suffix: str

    @property
    def migrator(self) -> str:
        return self._url("migrator")

    @property
    def runtime(self) -> str:
        return self._url("runtime")

    @property
    def reader(self) -> str:
        return self._url("reader")

    def name(self, role: str) -> str:
        """Give a role's name on this server: roles are shared by all its databases."""
        return f"levelsync_{role}_{self.suffix}"

    async def grant(self) -> None:
        """Run the file, as an operator does."""
        statements = RIGHTS
        for role in _ROLES:
            statements = statements.replace(f"levelsync_{role}", self.name(role))
        passwords = "".join(f"ALTER ROLE {self.name(role)} PASSWORD 'x';" for role in _ROLES)
        await live.execute(self.superuser, statements + passwords)

    def _url(self, role: str) -> str:
        place = urlsplit(self.superuser).netloc.rpartition("@")[2]
        return urlsplit(self.superuser)._replace(netloc=f"{self.name(role)}:x@{place}").geturl()


@asynccontextmanager
async def roles(url: str) -> AsyncIterator[Roles]:
    """The three roles with their rights in the database at `url`; they are gone afterwards."""
    made = Roles(url, uuid.uuid4().hex[:12])
    await made.grant()
    try:
        yield made
    finally:
        for role in _ROLES:
            await live.execute(url, f"REASSIGN OWNED BY {made.name(role)} TO CURRENT_USER",
                               f"DROP OWNED BY {made.name(role)}", f"DROP ROLE {made.name(role)}")  # fmt: skip
