"""The application's tables, as they are read from its database.

levelsync does not write columns that it does not know. If such a column must have a value and has no default in the
database, its value comes from LEVELSYNC_LICENSE_DEFAULTS or LEVELSYNC_PROGRESS_DEFAULTS. A column without a value
there is reported by name.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import read_fault
from service.levels import missing_maxima
from service.settings import PREFIX, Settings

LICENSES, PROGRESS, PROGRESSIONS = "user_licenses", "specialization_progress", "license_progressions"

LICENSE_COLUMNS = (
    "user_id",
    "specialization_type",
    "current_level",
    "max_achieved_level",
    "started_at",
    "last_advanced_at",
    "created_at",
    "updated_at",
)
"""The columns of a license that levelsync writes."""

PROGRESS_COLUMNS = (
    "student_id",
    "specialization_id",
    "current_level",
    "total_xp",
    "completed_sessions",
    "completed_projects",
    "theory_hours_completed",
    "practice_hours_completed",
    "last_activity",
    "created_at",
    "updated_at",
)
"""The columns of a progress row that levelsync writes."""

PROGRESSION_COLUMNS = ("user_license_id", "from_level", "to_level", "advancement_reason", "advanced_at")
"""The columns of a history row that levelsync writes."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "users": ("id",),
    "specializations": ("id",),
    PROGRESS: ("id", *PROGRESS_COLUMNS),
    LICENSES: ("id", *LICENSE_COLUMNS),
    PROGRESSIONS: PROGRESSION_COLUMNS,
}
"""The tables and columns of the application that levelsync needs."""

_WHY: Mapping[str, str] = {
    "users": "every level belongs to a user",
    "specializations": "it lists the specializations",
    PROGRESS: "levelsync compares it with user_licenses and writes levels into it",
    LICENSES: "levelsync compares it with specialization_progress and writes levels into it",
    PROGRESSIONS: "levelsync writes the history of licenses there",
}
_TYPES: Mapping[str, str] = {
    **dict.fromkeys(("started_at", "last_advanced_at", "last_activity", "advanced_at"), "timestamp"),
    **dict.fromkeys(("created_at", "updated_at"), "timestamp"),
    **dict.fromkeys(("specialization_type", "specialization_id"), "varchar(50)"),
    "advancement_reason": "text",
}
"""The types of the needed columns that are not integers."""

# `cast_type` has no length, because CAST(… AS varchar(20)) truncates a longer text that an assignment would refuse.
_COLUMNS = text("""
    SELECT quote_ident(n.nspname) AS schema_name, c.relname AS table_name, a.attname AS name,
           format_type(a.atttypid, a.atttypmod) AS type, format_type(a.atttypid, -1) AS cast_type,
           a.attnotnull AND NOT a.atthasdef AND a.attidentity = '' AND t.typdefault IS NULL AS needs_value
      FROM unnest(CAST(:tables AS text[])) AS k (name)
      JOIN pg_class c ON c.oid = to_regclass(quote_ident(k.name)) AND c.relkind IN ('r', 'p', 'v', 'f')
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
      JOIN pg_type t ON t.oid = a.atttypid
""")


@dataclass(frozen=True, slots=True)
class TableColumns:
    """A table that was found through the search_path, and its columns."""

    schema: str
    """The schema, quoted where necessary. Empty for a missing table."""
    types: Mapping[str, str]
    """The type of each column, in the form that a CAST needs. Values for an enum column must be cast to the enum."""
    required_columns: Mapping[str, str]
    """The columns that neither the database nor levelsync fills, with their types in PostgreSQL's notation."""

    @property
    def columns(self) -> Collection[str]:
        """The names of the columns."""
        return self.types.keys()


@dataclass(frozen=True, slots=True)
class Application:
    """The three tables of the application that levelsync writes."""

    licenses: TableColumns
    progress: TableColumns
    progressions: TableColumns


async def inspect_application(conn: AsyncConnection) -> Application:
    """Read the three tables and their columns. A missing table has no columns.

    Only this function resolves schemas and column types. Call it once for an engine, when its statements are built.
    After a migration of the application has changed the tables, the service must be restarted.
    """
    found = (await conn.execute(_COLUMNS, {"tables": [LICENSES, PROGRESS, PROGRESSIONS]})).all()

    def described(table: str, ours: Collection[str]) -> TableColumns:
        rows = [row for row in found if row.table_name == table]
        required = {row.name: row.type for row in rows if row.needs_value and row.name not in ours}
        schema = rows[0].schema_name if rows else ""
        return TableColumns(schema, {row.name: row.cast_type for row in rows}, required)

    return Application(
        described(LICENSES, LICENSE_COLUMNS),
        described(PROGRESS, PROGRESS_COLUMNS),
        described(PROGRESSIONS, PROGRESSION_COLUMNS),
    )


async def configuration_faults(conn: AsyncConnection, settings: Settings) -> list[str]:
    """Return a sentence for each fault of the settings with this database.

    With any fault `doctor` fails and `serve` does not start.
    """
    return [
        *await conn.run_sync(missing_maxima),
        *missing_defaults(await inspect_application(conn), settings),
        *await _unreadable(conn, LICENSES, settings.license_defaults, "LICENSE_DEFAULTS"),
        *await _unreadable(conn, PROGRESS, settings.progress_defaults, "PROGRESS_DEFAULTS"),
    ]


async def _unreadable(conn: AsyncConnection, table: str, defaults: Mapping[str, Any], variable: str) -> list[str]:
    """Return a sentence if PostgreSQL cannot convert the defaults to the types of the table's columns.

    Every new row converts them too. Without this check, a refusal there would look like the fault of a record.
    """
    query = text(f"SELECT jsonb_populate_record(NULL::{table}, CAST(:defaults AS jsonb)) IS NULL")
    try:
        async with conn.begin_nested():
            await conn.execute(query, {"defaults": json.dumps(defaults)})
    except DBAPIError as error:
        return [f"{PREFIX}{variable} cannot be read into {table}: {read_fault(error).message}"]
    return []


def missing_parts(conn: Connection) -> list[str]:
    """Return a sentence for each table and column of `NEEDED` that the database lacks, with the reason and the remedy.

    A missing table is named in the schema in which the search_path finds `users`.
    """
    found: dict[str, set[str]] = {}
    schemas: dict[str, str] = {}
    for row in conn.execute(_COLUMNS, {"tables": list(NEEDED)}):
        found.setdefault(row.table_name, set()).add(row.name)
        schemas[row.table_name] = row.schema_name
    return list(_missing(found, schemas))


def _missing(found: Mapping[str, set[str]], schemas: Mapping[str, str]) -> Iterator[str]:
    home = schemas.get("users", "public")
    for table, columns in NEEDED.items():
        name = f"{schemas.get(table, home)}.{table}"
        if table not in found:
            yield (
                f"table {name}: {_WHY[table]}. Run the application's own migrations first, or correct "
                f"{PREFIX}DATABASE_URL or the search_path of levelsync's role"
            )
            continue
        for column in columns:
            if column not in found[table]:
                yield (
                    f"column {name}.{column}: {_WHY[table]}. Run the application's own migrations first. If they do "
                    f"not create it, run: ALTER TABLE {name} ADD COLUMN {column} {_TYPES.get(column, 'integer')}"
                )


def missing_defaults(application: Application, settings: Settings) -> list[str]:
    """Return a sentence for each table with columns that nothing fills, and for each default that cannot be used.

    With any fault `doctor` fails and `serve` does not start.
    """
    return [
        *_faults(LICENSES, application.licenses, LICENSE_COLUMNS, settings.license_defaults, "LICENSE_DEFAULTS"),
        *_faults(PROGRESS, application.progress, PROGRESS_COLUMNS, settings.progress_defaults, "PROGRESS_DEFAULTS"),
        *_unfilled(
            PROGRESSIONS,
            application.progressions.required_columns,
            "levelsync has no setting for this table. Set defaults in the database",
        ),
    ]


def _faults(
    table: str, found: TableColumns, ours: Collection[str], defaults: Mapping[str, Any], variable: str
) -> Iterator[str]:
    unfilled = {name: kind for name, kind in found.required_columns.items() if defaults.get(name) is None}
    example = ", ".join(f'"{name}": …' for name in sorted({*defaults, *unfilled} & (set(found.columns) - set(ours))))
    yield from _unfilled(table, unfilled, f"set {PREFIX}{variable} to a JSON object with them: {{{example}}}")
    for name in sorted(defaults):
        if name in ours:
            yield f"{PREFIX}{variable} names {table}.{name}, which levelsync writes itself: remove it"
        elif name not in found.columns:
            yield f"{PREFIX}{variable} names {table}.{name}, and there is no such column: remove it"


def _unfilled(table: str, columns: Mapping[str, str], advice: str) -> Iterator[str]:
    if columns:
        named = ", ".join(f"{name} ({kind})" for name, kind in sorted(columns.items()))
        yield f"{table} has columns that must have a value and have no default: {named}; {advice}"
