"""`levelsync doctor`: is PostgreSQL there, migrated, and the application's data as the service needs it."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks import (
    BEFORE_MIGRATION,
    CURRICULUM,
    EDGE_CASES,
    INSTALLATION,
    WARNINGS,
    Check,
    application_columns,
    rights,
    row_security,
)
from service.cli import reach
from service.cli.exits import Unreachable
from service.cli.findings import Finding, Verdict, failed, passed, skipped, unreachable
from service.database.application import PROGRESS
from service.database.catalog import table_exists
from service.settings import Settings, SettingsError

POSTGRES_REACHABLE = "PostgreSQL reachable"
MIGRATED = "Migrations"
"""The name of the first check of `INSTALLATION`."""
_DATA = "Application's data"
_VERSION = text("SHOW server_version")


async def database_findings(settings: Settings) -> list[Finding]:
    """Check that PostgreSQL answers, and everything that is read from it."""
    try:
        async with reach.database(settings) as conn:
            version = await conn.scalar(_VERSION)
            found = passed(POSTGRES_REACHABLE, f"{reach.database_address(settings)}, version {version}")
            return [found, _as_finding(await row_security(conn)), *await _schema_findings(conn, settings)]
    except SettingsError as refused:
        unusable = "this connection cannot be used"
        return [failed(POSTGRES_REACHABLE, str(refused)), skipped(MIGRATED, unusable), skipped(_DATA, unusable)]
    except Unreachable as trouble:
        silent = "PostgreSQL does not answer"
        return [unreachable(POSTGRES_REACHABLE, str(trouble)), skipped(MIGRATED, silent), skipped(_DATA, silent)]


async def _schema_findings(conn: AsyncConnection, settings: Settings) -> list[Finding]:
    migrated, *installed = INSTALLATION
    head = _as_finding(await migrated(conn))
    if head.verdict is not Verdict.PASS:
        return [head, *await _before_migration(conn)]
    checks = [await check(conn) for check in (rights, *installed, *CURRICULUM, *EDGE_CASES, *WARNINGS)]
    columns = await application_columns(conn, settings)
    return [head, *(_as_finding(check) for check in (columns, *checks))]


async def _before_migration(conn: AsyncConnection) -> list[Finding]:
    """What the migrations will meet in the application's database; there is nothing to look at in an empty one."""
    rest = skipped(_DATA, "needs the migrations")
    if not await conn.run_sync(table_exists, PROGRESS):
        return [rest]
    return [*[_as_finding(await check(conn)) for check in BEFORE_MIGRATION], rest]


def _as_finding(check: Check) -> Finding:
    passes = Verdict.WARN if check.warns else Verdict.PASS
    return Finding(check.name, passes if check.passed else Verdict.FAIL, check.detail, check.fix)
