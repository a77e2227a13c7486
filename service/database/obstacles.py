"""What `levelsync migrate` would stop at, found without changing or locking anything: the migrations ask here too."""

from __future__ import annotations

from sqlalchemy import Connection, text

from service.database import catalog
from service.database.application import LICENSES, missing_parts
from service.database.duplicates import LICENSE_DUPLICATES, PROGRESS_DUPLICATES, differing_licenses
from service.database.tables import SCHEMA
from service.levels import missing_maxima
from service.settings import PREFIX

APPLICATION_TABLES = (
    "specializations",
    "player_levels",
    "coach_levels",
    "internship_levels",
    "license_metadata",
    "specialization_progress",
    "user_licenses",
    "license_progressions",
)
_ELSEWHERE = text("""
    SELECT quote_ident(n.nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.relname = 'users' AND c.relkind IN ('r', 'p', 'v', 'm', 'f')
       AND n.nspname !~ '^(pg_|information_schema$)' AND has_schema_privilege(n.oid, 'USAGE')
     ORDER BY 1
""")
# A role named levelsync has the schema levelsync on its path as "$user".
_ON_THE_PATH = text("""
    SELECT quote_ident(name) FROM unnest(current_schemas(false)) WITH ORDINALITY AS s (name, place)
     WHERE name <> 'levelsync' ORDER BY place
""")
_NOT_OWNED = text("""
    SELECT quote_ident(pg_get_userbyid(relowner)) FROM pg_class
     WHERE oid = to_regclass(:table) AND NOT pg_has_role(relowner, 'USAGE')
""")
_MAY_CREATE = text("SELECT has_database_privilege(current_database(), 'CREATE')")


def find_obstacles(conn: Connection) -> list[str]:
    """Say what `levelsync migrate` would stop at now, each with why and what helps; nothing where it would work."""
    if catalog.table_exists(conn, "users"):
        found = [*(f"there is no {part}" for part in missing_parts(conn)), *missing_maxima(conn)]
        found = found or [*_rights(conn), *_undecided(conn)]
    else:
        found = [users_elsewhere(conn) or half_an_application(conn) or no_place(conn)]
    return [*filter(None, found), *filter(None, [_no_schema_allowed(conn)])]


def users_elsewhere(conn: Connection) -> str:
    """Say that a schema beside the search_path has `users`: tables of our own beside it would be filled by nobody."""
    schemas = conn.execute(_ELSEWHERE).scalars().all()
    if not schemas:
        return ""
    return (
        f"{catalog.search_path(conn)} finds no table users, but the schema {schemas[0]} has one. If it is the "
        f"application's, run: ALTER ROLE {catalog.role(conn)} SET search_path = {schemas[0]}, public; then run "
        "levelsync migrate again. If it is not, give levelsync a database of its own."
    )


def half_an_application(conn: Connection) -> str:
    """Say that some of the application's tables are there without `users`."""
    there = [name for table in APPLICATION_TABLES if (name := catalog.qualified_name(conn, table))]
    if not there:
        return ""
    return (
        f"{catalog.search_path(conn)} finds no table users, to which every level belongs, but {there[0]} is there: "
        "this is neither an empty database nor the application's. Correct "
        f"{PREFIX}DATABASE_URL or the search_path, or give levelsync an empty database."
    )


def no_place(conn: Connection) -> str:
    """Say that no schema is on the search_path in which tables of our own could be created."""
    if own_schema(conn):
        return ""
    return (
        f"{catalog.search_path(conn)} names no schema that exists, so there is no place for tables. Run: "
        f"ALTER ROLE {catalog.role(conn)} SET search_path = public"
    )


def own_schema(conn: Connection) -> str:
    """Return the first schema of the search_path that exists, and never our own; '' where there is none."""
    schemas = conn.execute(_ON_THE_PATH).scalars().all()
    return str(schemas[0]) if schemas else ""


def _undecided(conn: Connection) -> list[str]:
    unique = catalog.find_unique(conn, LICENSES, LICENSE_DUPLICATES.key)
    return [] if unique is not None else [differing_licenses(conn)]


def _rights(conn: Connection) -> list[str]:
    """Say which tables the role would have to own to add the constraint that is missing."""
    found = []
    for duplicates in (PROGRESS_DUPLICATES, LICENSE_DUPLICATES):
        owner = conn.scalar(_NOT_OWNED, {"table": duplicates.table})
        if owner is not None and catalog.find_unique(conn, duplicates.table, duplicates.key) is None:
            columns = ", ".join(duplicates.key)
            found.append(
                f"{duplicates.table} has no UNIQUE ({columns}), without which two events at once would create two "
                f"rows, and the role {catalog.role(conn)} is not its owner, so it cannot add it. Run levelsync migrate "
                f"as {owner}, or run as {owner}: ALTER TABLE {catalog.qualified_name(conn, duplicates.table)} "
                f"ADD UNIQUE ({columns})"
            )
    return found


def _no_schema_allowed(conn: Connection) -> str:
    there = conn.scalar(text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": SCHEMA})
    if there or conn.scalar(_MAY_CREATE):
        return ""
    database = conn.scalar(text("SELECT quote_ident(current_database())"))
    return (
        f"the role {catalog.role(conn)} may not create the schema {SCHEMA}, where everything of levelsync is. Run: "
        f"GRANT CREATE ON DATABASE {database} TO {catalog.role(conn)}"
    )
