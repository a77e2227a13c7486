"""Whether the database is migrated, filled, and shaped as the service needs it (R9a, R9b, R10)."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import Checker, CheckFailed, check
from service.database.application import LICENSES, configuration_faults, missing_parts
from service.database.catalog import find_unique
from service.database.migrate import HEAD, read_revision
from service.settings import Settings


@check("Migrations", "Run: levelsync migrate")
async def migrations(conn: AsyncConnection) -> str:
    """The database stands at this release's revision."""
    found = await read_revision(conn)
    if found != HEAD:
        raise CheckFailed(f"the database stands at {found or 'no revision'}, this release needs {HEAD}")
    return f"at {HEAD}"


@check("Users", "LEVELSYNC_DATABASE_URL may name another database than the application's.")
async def users(conn: AsyncConnection) -> str:
    """There are users: without any, this is hardly the application's database (R10)."""
    if not await conn.scalar(text("SELECT EXISTS (SELECT FROM public.users)")):
        raise CheckFailed("the table users is empty")
    return "there are users"


@check("One license for each pair", "Run: levelsync migrate")
async def license_unique(conn: AsyncConnection) -> str:
    """`user_licenses` has the unique index that creating a license needs, under whatever name (R9a)."""
    found = await conn.run_sync(find_unique, LICENSES, ("user_id", "specialization_type"))
    if found is None:
        raise CheckFailed("user_licenses has no unique index on (user_id, specialization_type)")
    return f"unique by {found.name}"


@check("Application's columns", "See README, Settings: LEVELSYNC_LICENSE_DEFAULTS and LEVELSYNC_PROGRESS_DEFAULTS.")
async def application_columns(conn: AsyncConnection, settings: Settings) -> str:
    """Every column that the service needs is there, and every other one that must have a value gets one (R9b)."""
    missing = [f"there is no {part}" for part in await conn.run_sync(missing_parts)]
    wrong = missing or await configuration_faults(conn, settings)
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return "all that are needed are there, and every other has a value"


INSTALLATION: tuple[Checker, ...] = (migrations, users, license_unique)
"""What `doctor` checks besides, with `application_columns`, which asks for the settings too."""
