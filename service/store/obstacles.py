"""Obstacles to a migration: how they are found, and how duplicate rows are removed.

References to a removed row are changed to the row that stays. The removed row is stored as JSON in
`levelsync.removed_rows`. Every step is one statement, so that a hundred thousand rows take seconds. The caller must
have locked the table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service.faults import Kind, read_fault
from service.levels import missing_maxima
from service.settings import PREFIX
from service.store import catalog
from service.store.application import LICENSE_COLUMNS, LICENSES, PROGRESS, missing_parts
from service.store.catalog import Reference
from service.store.revisions import Stop, changes, log
from service.store.tables import SCHEMA

_IDS_A_LINE = 1000
_PAIRS_LISTED = 100


@dataclass(frozen=True, slots=True)
class Duplicates:
    """Rows of a table with the same key. Of each key, the first row by `order` stays."""

    table: str
    key: tuple[str, str]
    order: str
    revision: str

    def find(self, conn: Connection) -> int:
        """Write the ids of the rows to remove into a temporary table and return their number.

        Beside each of them is the id of the row that stays. Rows with NULL in the key are not duplicates.
        """
        conn.execute(text("DROP TABLE IF EXISTS pg_temp.levelsync_duplicates"))
        conn.execute(
            text(f"""
                CREATE TEMPORARY TABLE levelsync_duplicates ON COMMIT DROP AS {self._to_remove()}
            """)
        )
        conn.execute(text("ANALYZE pg_temp.levelsync_duplicates"))
        return conn.scalar(text("SELECT count(*) FROM pg_temp.levelsync_duplicates")) or 0

    def differing(self, conn: Connection, ours: Sequence[str]) -> str:
        """Return a sentence that lists the pairs whose rows differ in a column outside `ours`, or ''.

        levelsync cannot know which value is right. This function only reads, so that `doctor` can call it too.
        """
        rows = conn.execute(
            text(f"""
                WITH d AS MATERIALIZED ({self._to_remove()})
                SELECT {self._named("gone")} AS pair, string_agg(DISTINCT o.key, ', ' ORDER BY o.key) AS columns
                  FROM d
                  JOIN {self.table} gone ON gone.id = d.id
                  JOIN {self.table} stays ON stays.id = d.kept
                 CROSS JOIN LATERAL jsonb_each(to_jsonb(gone)) AS o (key, value)
                 WHERE o.key <> ALL(CAST(:ours AS text[])) AND o.value IS DISTINCT FROM to_jsonb(stays) -> o.key
                 GROUP BY 1 ORDER BY 1
            """),
            {"ours": ["id", *ours]},
        )
        differing = [f"{row.pair} in {row.columns}" for row in rows]
        if not differing:
            return ""
        first, second = self.key
        return (
            f"{self.table} has several rows for one pair ({first}, {second}), but levelsync needs a unique constraint "
            f"there, because two concurrent events would create two rows. The rows differ in columns that are not "
            f"levelsync's, so it cannot know which row to keep. Remove all but one row of each of these pairs, or make "
            f"the columns equal, then run levelsync migrate again: {_listed(differing)}."
        )

    def remove(self, conn: Connection) -> None:
        """Change references to the rows that stay, move the others to `levelsync.removed_rows`, and log their ids.

        Raises:
            Stop: The database refuses to change a reference. The text lists the pairs.
        """
        conn.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # so that a refusal is raised here and not at the commit
        references = catalog.references_to(conn, self.table)
        for reference in references:
            self._point_at_kept(conn, reference)
        indexes = _index(conn, [reference for reference in references if not reference.indexed])
        self._move(conn)
        for index in indexes:
            conn.execute(text(f"DROP INDEX {index}"))

    def _point_at_kept(self, conn: Connection, reference: Reference) -> None:
        if reference.target != ("id",):
            raise Stop(
                f"{reference.table} references {self.table} by more than its id ({reference.name}), so duplicates "
                f"cannot be removed. Remove all but one row of each of these pairs, then run levelsync migrate again: "
                f"{_listed(self._pairs(conn))}."
            )
        column = reference.columns[0]
        try:
            with conn.begin_nested():
                conn.execute(
                    text(f"""
                        UPDATE {reference.table} AS r SET {column} = d.kept
                          FROM pg_temp.levelsync_duplicates d WHERE r.{column} = d.id
                    """)
                )
        except DBAPIError as error:
            fault = read_fault(error)
            if fault.kind is Kind.TRANSIENT:  # for example a lock timeout, which does not concern the rows
                raise
            where = f"WHERE EXISTS (SELECT FROM {reference.table} r WHERE r.{column} = d.id)"
            raise Stop(
                f"The references of {reference.table} cannot be changed to the rows of {self.table} that stay: "
                f"{fault.message}. Remove all but one row of each of these pairs, then run levelsync migrate again: "
                f"{_listed(self._pairs(conn, where))}."
            ) from error

    def _move(self, conn: Connection) -> None:
        removed = conn.execute(
            text(f"""
                WITH gone AS (
                    DELETE FROM {self.table} t USING pg_temp.levelsync_duplicates d
                     WHERE t.id = d.id RETURNING t.*)
                INSERT INTO levelsync.removed_rows (table_name, row_id, row, revision)
                SELECT '{self.table}', gone.id, to_jsonb(gone), '{self.revision}' FROM gone ORDER BY gone.id
                RETURNING row_id
            """)
        )
        ids = sorted(removed.scalars())
        changes.add(f"removed {len(ids)} duplicates from {self.table}, stored in levelsync.removed_rows")
        for start in range(0, len(ids), _IDS_A_LINE):
            line = ", ".join(map(str, ids[start : start + _IDS_A_LINE]))
            log.info("Removed duplicates from %s (stored in levelsync.removed_rows), ids: %s", self.table, line)

    def _pairs(self, conn: Connection, where: str = "") -> list[str]:
        return list(
            conn.execute(
                text(f"""
                    SELECT DISTINCT {self._named("t")} AS pair FROM pg_temp.levelsync_duplicates d
                      JOIN {self.table} t ON t.id = d.id {where} ORDER BY 1
                """)
            ).scalars()
        )

    def _to_remove(self) -> str:
        first, second = self.key
        return f"""
            SELECT id, kept FROM (
                SELECT id, first_value(id) OVER (PARTITION BY {first}, {second} ORDER BY {self.order}) AS kept
                  FROM {self.table}
                 WHERE {first} IS NOT NULL AND {second} IS NOT NULL) AS ranked
             WHERE id <> kept
        """

    def _named(self, alias: str) -> str:
        first, second = self.key
        return f"'(' || {alias}.{first} || ', ' || {alias}.{second} || ')'"


def _index(conn: Connection, references: Sequence[Reference]) -> list[str]:
    """Create temporary indexes on referencing columns, because PostgreSQL searches them for each removed row.

    Return their names, so that the caller can drop them.
    """
    names = []
    for number, reference in enumerate(references):
        name = f"levelsync_for_a_while_{number}"
        conn.execute(text(f"CREATE INDEX {name} ON {reference.table} ({reference.columns[0]})"))
        schema = conn.scalar(
            text("SELECT relnamespace::regnamespace::text FROM pg_class WHERE oid = to_regclass(:table)"),
            {"table": reference.table},
        )
        names.append(f"{schema}.{name}")
    return names


def _listed(items: Sequence[str]) -> str:
    more = len(items) - _PAIRS_LISTED
    return "; ".join(items[:_PAIRS_LISTED]) + (f"; and {more} more" if more > 0 else "")


PROGRESS_DUPLICATES = Duplicates(
    PROGRESS,
    ("student_id", "specialization_id"),
    "current_level DESC NULLS LAST, updated_at DESC NULLS LAST, id DESC",
    "unique_progress_constraint",
)
LICENSE_DUPLICATES = Duplicates(
    LICENSES, ("user_id", "specialization_type"), "current_level DESC NULLS LAST, id", "license_unique"
)


def differing_licenses(conn: Connection) -> str:
    """Return a sentence that lists the pairs whose licenses the migrations cannot choose between, or ''."""
    return LICENSE_DUPLICATES.differing(conn, LICENSE_COLUMNS)


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
    """Return a sentence for each obstacle at which `levelsync migrate` would stop, with the reason and the remedy."""
    if catalog.table_exists(conn, "users"):
        found = [*(f"there is no {part}" for part in missing_parts(conn)), *missing_maxima(conn)]
        found = found or [*_rights(conn), *_undecided(conn)]
    else:
        found = [users_in_other_schema(conn) or partial_application(conn) or no_usable_schema(conn)]
    return [*filter(None, found), *filter(None, [_no_schema_allowed(conn)])]


def users_in_other_schema(conn: Connection) -> str:
    """Return a sentence if a schema outside the search_path has `users`, otherwise ''.

    Tables that levelsync created elsewhere would stay empty, because the application does not know them.
    """
    schemas = conn.execute(_ELSEWHERE).scalars().all()
    if not schemas:
        return ""
    return (
        f"{catalog.search_path(conn)} finds no table users, but the schema {schemas[0]} has one. If it is the "
        f"application's, run: ALTER ROLE {catalog.role(conn)} SET search_path = {schemas[0]}, public; then run "
        "levelsync migrate again. Otherwise use a separate database for levelsync."
    )


def partial_application(conn: Connection) -> str:
    """Return a sentence if some of the application's tables exist without `users`, otherwise ''."""
    there = [name for table in APPLICATION_TABLES if (name := catalog.qualified_name(conn, table))]
    if not there:
        return ""
    return (
        f"{catalog.search_path(conn)} finds no table users, to which every level belongs, but {there[0]} exists. "
        "So this is neither an empty database nor the application's. Correct "
        f"{PREFIX}DATABASE_URL or the search_path, or use an empty database for levelsync."
    )


def no_usable_schema(conn: Connection) -> str:
    """Return a sentence if the search_path has no schema in which tables can be created, otherwise ''."""
    if own_schema(conn):
        return ""
    return (
        f"{catalog.search_path(conn)} names no schema that exists, so no tables can be created. Run: "
        f"ALTER ROLE {catalog.role(conn)} SET search_path = public"
    )


def own_schema(conn: Connection) -> str:
    """Return the first existing schema of the search_path other than `levelsync`, or ''."""
    schemas = conn.execute(_ON_THE_PATH).scalars().all()
    return str(schemas[0]) if schemas else ""


def _undecided(conn: Connection) -> list[str]:
    unique = catalog.find_unique(conn, LICENSES, LICENSE_DUPLICATES.key)
    return [] if unique is not None else [differing_licenses(conn)]


def _rights(conn: Connection) -> list[str]:
    """Return a sentence for each table that lacks its unique constraint and whose owner the role is not."""
    found = []
    for duplicates in (PROGRESS_DUPLICATES, LICENSE_DUPLICATES):
        owner = conn.scalar(_NOT_OWNED, {"table": duplicates.table})
        if owner is not None and catalog.find_unique(conn, duplicates.table, duplicates.key) is None:
            columns = ", ".join(duplicates.key)
            found.append(
                f"{duplicates.table} has no UNIQUE ({columns}), without which two concurrent events would create two "
                f"rows. The role {catalog.role(conn)} does not own the table and cannot add the constraint. Run "
                f"levelsync migrate as {owner}, or run as {owner}: "
                f"ALTER TABLE {catalog.qualified_name(conn, duplicates.table)} ADD UNIQUE ({columns})"
            )
    return found


def _no_schema_allowed(conn: Connection) -> str:
    there = conn.scalar(text("SELECT to_regnamespace(:schema) IS NOT NULL"), {"schema": SCHEMA})
    if there or conn.scalar(_MAY_CREATE):
        return ""
    database = conn.scalar(text("SELECT quote_ident(current_database())"))
    return (
        f"the role {catalog.role(conn)} may not create the schema {SCHEMA}, which contains levelsync's tables. Run: "
        f"GRANT CREATE ON DATABASE {database} TO {catalog.role(conn)}"
    )
