"""Whether the database user may do what the service does (deploy/postgresql/rights.sql), found out without writing."""

from __future__ import annotations

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

from service.checks.result import CheckFailed, check
from service.store.application import LICENSES, PROGRESS, PROGRESSIONS

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
    """No policy hides rows from the service: hidden rows would count as absent (laws 4 and 8)."""
    if tables := await filtered_tables(conn):
        raise CheckFailed(filtered_sentence(tables))
    return "no policy hides rows from the database user"


@check("Rights in PostgreSQL", "Run deploy/postgresql/rights.sql as a superuser, or grant what is missing.")
async def rights(conn: AsyncConnection) -> str:
    """The database user has each right that the service needs."""
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
    """List the tables of which a policy hides rows from the database user."""
    return list((await conn.execute(_FILTERED, {"tables": list(_OF_THE_APPLICATION)})).scalars())


def filtered_sentence(tables: list[str]) -> str:
    """Say what row-level security does here, and what to do."""
    return (
        f"row-level security filters {', '.join(tables)} for the database user, and levelsync would take hidden rows "
        "for absent. Exempt this user: ALTER ROLE … BYPASSRLS"
    )
