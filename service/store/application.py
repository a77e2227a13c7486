"""What the application's tables look like in this database: read from it, never assumed.

Columns that levelsync does not know are left alone. One that must have a value and gets none from the database is
filled from LEVELSYNC_LICENSE_DEFAULTS or LEVELSYNC_PROGRESS_DEFAULTS; without one there, it is named.
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
"""What levelsync writes of a license."""

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
"""What levelsync writes of a progress row."""

PROGRESSION_COLUMNS = ("user_license_id", "from_level", "to_level", "advancement_reason", "advanced_at")
"""What levelsync writes of a license's history."""

NEEDED: Mapping[str, tuple[str, ...]] = {
    "users": ("id",),
    "specializations": ("id",),
    PROGRESS: ("id", *PROGRESS_COLUMNS),
    LICENSES: ("id", *LICENSE_COLUMNS),
    PROGRESSIONS: PROGRESSION_COLUMNS,
}
"""The application's tables and columns without which levelsync cannot work."""

_WHY: Mapping[str, str] = {
    "users": "levels are those of a user",
    "specializations": "it says which specializations there are",
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
"""Of the columns that are not integers."""

# `cast_type` is without the length: CAST(… AS varchar(20)) would cut a longer text where an assignment refuses it.
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
    """A table as the search_path finds it, and its columns."""

    schema: str
    """Quoted where it has to be; empty for a table that is missing."""
    types: Mapping[str, str]
    """Name to type, as a CAST in a statement needs it: what levelsync writes into an enum is cast to that enum."""
    required_columns: Mapping[str, str]
    """Columns that neither the database nor levelsync fills: name to type, as PostgreSQL writes it."""

    @property
    def columns(self) -> Collection[str]:
        """The names of the columns."""
        return self.types.keys()


@dataclass(frozen=True, slots=True)
class Application:
    """The three tables that levelsync writes, as found."""

    licenses: TableColumns
    progress: TableColumns
    progressions: TableColumns


async def inspect_application(conn: AsyncConnection) -> Application:
    """Read what the three tables look like now. A table that is missing has no columns.

    This is the one place that resolves schemas and column types. Call it once for an engine, when statements are built;
    the application changes them in a migration of its own, after which the service is started again.
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
    """Say what the settings must give or change for this database: a sentence each, none where all is well.

    Any sentence is a fault of the configuration: `doctor` fails, `serve` does not start.
    """
    return [
        *await conn.run_sync(missing_maxima),
        *missing_defaults(await inspect_application(conn), settings),
        *await _unreadable(conn, LICENSES, settings.license_defaults, "LICENSE_DEFAULTS"),
        *await _unreadable(conn, PROGRESS, settings.progress_defaults, "PROGRESS_DEFAULTS"),
    ]


async def _unreadable(conn: AsyncConnection, table: str, defaults: Mapping[str, Any], variable: str) -> list[str]:
    """Let PostgreSQL read the defaults as it will for every new row: a refusal is not a record's fault."""
    query = text(f"SELECT jsonb_populate_record(NULL::{table}, CAST(:defaults AS jsonb)) IS NULL")
    try:
        async with conn.begin_nested():
            await conn.execute(query, {"defaults": json.dumps(defaults)})
    except DBAPIError as error:
        return [f"{PREFIX}{variable} cannot be read into {table}: {read_fault(error).message}"]
    return []


def missing_parts(conn: Connection) -> list[str]:
    """Name the tables and columns of `NEEDED` that the database lacks: each with its schema, why, and what helps.

    A table that is missing is named in the schema in which the search_path finds `users`.
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
                    f"column {name}.{column}: {_WHY[table]}. Run the application's own migrations first; where they do "
                    f"not create it, run: ALTER TABLE {name} ADD COLUMN {column} {_TYPES.get(column, 'integer')}"
                )


def missing_defaults(application: Application, settings: Settings) -> list[str]:
    """Say which columns get no value from anybody, a sentence for each table, and which defaults cannot be used.

    Any sentence is a fault of the configuration: `doctor` fails, `serve` does not start.
    """
    return [
        *_faults(LICENSES, application.licenses, LICENSE_COLUMNS, settings.license_defaults, "LICENSE_DEFAULTS"),
        *_faults(PROGRESS, application.progress, PROGRESS_COLUMNS, settings.progress_defaults, "PROGRESS_DEFAULTS"),
        *_unfilled(
            PROGRESSIONS,
            application.progressions.required_columns,
            "levelsync has no setting for this table. Give defaults in the database",
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
            yield f"{PREFIX}{variable} names {table}.{name}, which levelsync writes itself: take it out"
        elif name not in found.columns:
            yield f"{PREFIX}{variable} names {table}.{name}, and there is no such column: take it out"


def _unfilled(table: str, columns: Mapping[str, str], advice: str) -> Iterator[str]:
    if columns:
        named = ", ".join(f"{name} ({kind})" for name, kind in sorted(columns.items()))
        yield f"{table} has columns that must have a value and have no default: {named}; {advice}"
