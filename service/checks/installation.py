"""Check what levelsync needs of the database: tables, columns, functions, rights."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.curriculum import duplicate_progress
from service.checks.result import Checker, CheckFailed, check
from service.settings import Settings
from service.store.application import LICENSES, PROGRESS, PROGRESSIONS, configuration_faults, missing_parts
from service.store.catalog import find_unique
from service.store.functions import CREATED_FOR_OTHER_TABLES, changes_since_v1
from service.store.obstacles import find_obstacles
from service.store.schema import schema_state_of

_OF_THE_APPLICATION = {
    "users": ("SELECT",),
    "specializations": ("SELECT",),
    PROGRESS: ("SELECT", "INSERT", "UPDATE"),
    LICENSES: ("SELECT", "INSERT", "UPDATE"),
    PROGRESSIONS: ("SELECT", "INSERT"),
}
_ROWS = "SELECT, INSERT, UPDATE, DELETE"

_FILTERED = text("""
    SELECT c.oid::regclass::text FROM pg_class c
     WHERE c.relrowsecurity AND row_security_active(c.oid)
       AND (c.oid = ANY(SELECT to_regclass(name)::oid FROM unnest(CAST(:tables AS text[])) AS t (name))
            OR c.relnamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'levelsync'))
     ORDER BY 1
""")
_MISSING = text("""
    WITH ours AS (SELECT oid FROM pg_namespace WHERE nspname = 'levelsync')
    SELECT format('USAGE on schema %s', nspname) FROM pg_namespace
     WHERE oid IN (SELECT oid FROM ours) AND NOT has_schema_privilege(oid, 'USAGE')
    UNION ALL
    SELECT format('%s on %s', privilege, name)
      FROM unnest(CAST(:tables AS text[]), CAST(:privileges AS text[])) AS t (name, privilege)
     WHERE NOT has_table_privilege(to_regclass(name), privilege)
    UNION ALL
    SELECT 'UPDATE (id) on users'  -- for the lock FOR KEY SHARE alone
     WHERE NOT has_any_column_privilege(to_regclass('users'), 'UPDATE')
    UNION ALL
    SELECT format('%s on levelsync.%s', privilege, c.relname)
      FROM pg_class c CROSS JOIN regexp_split_to_table(:rows, ', ') AS p (privilege)
     WHERE c.relnamespace IN (SELECT oid FROM ours) AND c.relkind = 'r'
       AND c.relname NOT IN ('alembic_version', 'schema_info', 'removed_rows')
       AND NOT has_table_privilege(c.oid, privilege)
    UNION ALL
    SELECT format('SELECT on levelsync.%s', c.relname)
      FROM pg_class c
     WHERE c.relnamespace IN (SELECT oid FROM ours)
       AND (c.relkind = 'v' OR c.relname IN ('alembic_version', 'schema_info'))
       AND NOT has_table_privilege(c.oid, 'SELECT')
    UNION ALL
    SELECT format('EXECUTE on function levelsync.%s', proname) FROM pg_proc
     WHERE pronamespace IN (SELECT oid FROM ours) AND NOT has_function_privilege(oid, 'EXECUTE')
    UNION ALL
    SELECT format('USAGE on sequence %s', s.oid::regclass)
      FROM pg_class s
      JOIN pg_depend d ON d.objid = s.oid AND d.classid = 'pg_class'::regclass AND d.deptype = 'a'
     WHERE CASE WHEN s.relkind = 'S' THEN NOT has_sequence_privilege(s.oid, 'USAGE') END
       AND d.refobjid IN (SELECT to_regclass(name)::oid FROM unnest(CAST(:serial AS text[])) AS t (name)
                          UNION ALL SELECT oid FROM pg_class WHERE relnamespace IN (SELECT oid FROM ours))
     ORDER BY 1
""")


@check("Row-level security", "Exempt the database user: ALTER ROLE … BYPASSRLS")
async def row_security(conn: AsyncConnection) -> str:
    """Check that no policy hides rows from the service, because hidden rows would count as absent (laws 4 and 8)."""
    if tables := await filtered_tables(conn):
        raise CheckFailed(filtered_sentence(tables))
    return "no policy hides rows from the database user"


@check("Rights in PostgreSQL", "Run deploy/postgresql/rights.sql as a superuser, or grant what is missing.")
async def rights(conn: AsyncConnection) -> str:
    """Check that the database user has each right that the service needs."""
    pairs = [(table, right) for table, rights_ in _OF_THE_APPLICATION.items() for right in rights_]
    values = {
        "tables": [table for table, _ in pairs],
        "privileges": [right for _, right in pairs],
        "rows": _ROWS,
        "serial": [PROGRESS, LICENSES, PROGRESSIONS],
    }
    if missing := list((await conn.execute(_MISSING, values)).scalars()):
        raise CheckFailed(
            f"the database user {await conn.scalar(text('SELECT current_user'))} has no {', '.join(missing)}"
        )
    return "the database user has every right that levelsync needs"


async def filtered_tables(conn: AsyncConnection) -> list[str]:
    """Return the tables of which a policy hides rows from the database user."""
    return list((await conn.execute(_FILTERED, {"tables": list(_OF_THE_APPLICATION)})).scalars())


def filtered_sentence(tables: list[str]) -> str:
    """Return the sentence about tables that row-level security filters, with what to do."""
    return (
        f"row-level security filters {', '.join(tables)} for the database user, and levelsync would treat hidden "
        "rows as absent. Exempt this user: ALTER ROLE … BYPASSRLS"
    )


PROGRESS_UNIQUE = "uq_specialization_progress_user_spec"
"""The constraint that the migration adds."""

_OWNER_OF_NAME = text("""
    SELECT 'the constraint ' || pg_get_constraintdef(oid) FROM pg_constraint
     WHERE conrelid = to_regclass('specialization_progress') AND conname = :name
     UNION ALL
    SELECT 'a relation of the kind ' || relkind::text FROM pg_class
     WHERE relname = :name
       AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('specialization_progress'))
     LIMIT 1
""")


_REPAIR_FIRST = "Repair this, then run: levelsync migrate"


@check("Migrations", "Run: levelsync migrate")
async def migrations(conn: AsyncConnection) -> str:
    """Check that the database is at this release's revision, or at a later one that allows this release.

    Also check that the stored functions were created for the application's tables as they are now.
    """
    state = await schema_state_of(conn)
    obstacles = await conn.run_sync(find_obstacles) if state.reason and not state.is_later else []
    if obstacles:
        raise CheckFailed(f"{state.reason}, and levelsync migrate would stop: {'; '.join(obstacles)}", _REPAIR_FIRST)
    if state.reason:
        raise CheckFailed(state.reason, state.advice)
    if changed := await conn.run_sync(changes_since_v1):
        raise CheckFailed(f"{CREATED_FOR_OTHER_TABLES}: {'; '.join(changed)}")
    later = ", which a later release created and this release may use" if state.is_later else ""
    return f"at {state.revision}{later}"


@check("Users", "Check LEVELSYNC_DATABASE_URL: it may name a database that is not the application's.")
async def users(conn: AsyncConnection) -> str:
    """Check that there are users, because the application's database has some."""
    if not await conn.scalar(text("SELECT EXISTS (SELECT FROM users)")):
        raise CheckFailed("the table users is empty")
    return "there are users"


@check("Constraint's name", f"Rename or drop the object named {PROGRESS_UNIQUE}, then run: levelsync migrate")
async def constraint_name(conn: AsyncConnection) -> str:
    """Check that the constraint which the migration adds exists already, or that its name is free."""
    found = await conn.run_sync(find_unique, PROGRESS, ("student_id", "specialization_id"))
    if found is not None and found.is_constraint:
        return f"the constraint is there already, as {found.name}: migrate leaves it"
    holder = await conn.scalar(_OWNER_OF_NAME, {"name": PROGRESS_UNIQUE})
    if holder is not None:
        raise CheckFailed(f"{PROGRESS_UNIQUE} is {holder}, not UNIQUE (student_id, specialization_id)")
    return f"{PROGRESS_UNIQUE} is free"


@check(
    "One license for each pair",
    "Remove all but one license of each pair, then run: "
    "ALTER TABLE user_licenses ADD UNIQUE (user_id, specialization_type)",
)
async def license_unique(conn: AsyncConnection) -> str:
    """Check that `user_licenses` has a unique index, with any name, because creating a license needs it."""
    found = await conn.run_sync(find_unique, LICENSES, ("user_id", "specialization_type"))
    if found is None:
        raise CheckFailed("user_licenses has no unique index on (user_id, specialization_type)")
    return f"unique by {found.name}"


@check(
    "Application's columns",
    "See LEVELSYNC_LICENSE_DEFAULTS and LEVELSYNC_PROGRESS_DEFAULTS in docs/reference/settings.md.",
)
async def application_columns(conn: AsyncConnection, settings: Settings) -> str:
    """Check that every needed column exists, and that every other column that must have a value gets one."""
    missing = [f"there is no {part}" for part in await conn.run_sync(missing_parts)]
    wrong = missing or await configuration_faults(conn, settings)
    if wrong:
        raise CheckFailed("; ".join(wrong))
    return "all needed columns exist, and every other one gets a value"


BEFORE_MIGRATION: tuple[Checker, ...] = (constraint_name, duplicate_progress)
"""The checks of what can prevent a migration of the application's database, or what the migration repairs."""

INSTALLATION: tuple[Checker, ...] = (migrations, users, license_unique)
"""The other checks of `doctor`. `application_columns` is not among them because it needs the settings."""
