"""The revision of the database's schema, and whether this release may run on it.

`serve` checks this often, so the revisions are read from their files, without importing Alembic.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.store.tables import SCHEMA

VERSION_TABLE = "alembic_version"
INFO_TABLE = "schema_info"
RELEASE = version("levelsync")
"""The version of this release."""

_ASSIGNED = re.compile(r'^(revision|down_revision) = "(\w+)"$', re.MULTILINE)
_EXISTS = text("SELECT to_regclass(:table) IS NOT NULL")


def scripts_folder() -> Path:
    """Return the folder of the migrations: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    installed = package / "migrations"
    return installed if installed.is_dir() else package.parent / "alembic"


def _read_revisions() -> tuple[str, frozenset[str]]:
    """Return the newest revision, and all of them. A test compares the newest with what Alembic finds."""
    files = [path.read_text(encoding="utf-8") for path in (scripts_folder() / "versions").glob("*.py")]
    found = [dict(_ASSIGNED.findall(content)) for content in files]
    known = frozenset(names["revision"] for names in found)
    (head,) = known - {names.get("down_revision") for names in found}
    return head, known


HEAD, KNOWN = _read_revisions()
"""The revision that this release needs, and every revision that it knows."""


@dataclass(frozen=True, slots=True)
class SchemaState:
    """The revision of a database's schema, and the oldest release that may run on it, or '' if that is not recorded."""

    revision: str | None
    oldest_release: str = ""

    @property
    def is_later(self) -> bool:
        """Whether a later release created this schema."""
        return self.revision is not None and self.revision not in KNOWN

    @property
    def allows_this_release(self) -> bool:
        """Whether this release may run: the schema is at its revision, or at a later one that allows this release."""
        if self.is_later:
            return bool(self.oldest_release) and release_number(self.oldest_release) <= release_number(RELEASE)
        return self.revision == HEAD

    @property
    def refusal(self) -> str:
        """Return why this release may not run on the schema and what to do, or ''."""
        return f"{self.reason}. {self.advice}" if self.reason else ""

    @property
    def reason(self) -> str:
        """Return why this release may not run on the schema, or ''."""
        if self.allows_this_release:
            return ""
        if self.revision is None:
            return "The database has no schema of levelsync yet"
        if not self.is_later:
            return f"The schema is at revision {self.revision}, but release {RELEASE} needs {HEAD}"
        if not self.oldest_release:
            return (
                f"The schema is at revision {self.revision}, which release {RELEASE} does not know, and "
                f"{SCHEMA}.{INFO_TABLE} does not name the releases that may run on it"
            )
        return (
            f"The schema is at revision {self.revision}, which a later release created. Release {self.oldest_release} "
            f"is the oldest that may run on it, but this is {RELEASE}"
        )

    @property
    def advice(self) -> str:
        """Return what to do if this release may not run on the schema."""
        if not self.is_later:
            return "Run: levelsync migrate"
        if not self.oldest_release:
            return "Run the release that created it."
        return f"Run release {self.oldest_release} or a later one."


def release_number(release: str) -> tuple[int, ...]:
    """Return the numbers of a version such as 0.2.0, for comparison. A pre-release counts as its release."""
    return tuple(int(number) for number in re.findall(r"\d+", release)[:3])


def read_schema_state(conn: Connection) -> SchemaState:
    """Read the revision of the database's schema. Return `SchemaState(None)` before the first migration."""
    if not conn.scalar(_EXISTS, {"table": f"{SCHEMA}.{VERSION_TABLE}"}):
        return SchemaState(None)
    revision = conn.scalar(text(f"SELECT version_num FROM {SCHEMA}.{VERSION_TABLE}"))
    if not conn.scalar(_EXISTS, {"table": f"{SCHEMA}.{INFO_TABLE}"}):
        return SchemaState(revision)
    return SchemaState(revision, conn.scalar(text(f"SELECT oldest_release FROM {SCHEMA}.{INFO_TABLE}")) or "")


async def schema_state_of(conn: AsyncConnection) -> SchemaState:
    """Read the revision of the database's schema over an asynchronous connection."""
    return await conn.run_sync(read_schema_state)
