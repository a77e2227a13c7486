"""Queries of pg_catalog about the application's tables, their keys and their sequences.

Tables are found through the search_path of the role, as in every statement of the service.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

_UNIQUE = text("""
    SELECT i.relname AS name, c.conname IS NOT NULL AS is_constraint,
           x.indisvalid AND x.indimmediate AND x.indpred IS NULL AND x.indexprs IS NULL AS usable,
           (SELECT array_agg(a.attname::text)
              FROM unnest(x.indkey::int2[]) WITH ORDINALITY AS k (attnum, place)
              JOIN pg_attribute a ON a.attrelid = x.indrelid AND a.attnum = k.attnum
             WHERE k.place <= x.indnkeyatts) AS columns
      FROM pg_index x
      JOIN pg_class i ON i.oid = x.indexrelid
      LEFT JOIN pg_constraint c ON c.conindid = x.indexrelid AND c.contype IN ('u', 'p')
     WHERE x.indrelid = to_regclass(:table) AND x.indisunique
     ORDER BY c.conname IS NULL, i.relname
""")
_QUALIFIED = text("""
    SELECT format('%I.%I', n.nspname, c.relname)
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = to_regclass(:table)
""")
_REFERENCES = text("""
    SELECT c.conname AS name, c.conrelid::regclass::text AS table_name,
           (SELECT array_agg(quote_ident(a.attname))
              FROM pg_attribute a WHERE a.attrelid = c.conrelid AND a.attnum = ANY(c.conkey)) AS columns,
           (SELECT array_agg(a.attname::text)
              FROM pg_attribute a WHERE a.attrelid = c.confrelid AND a.attnum = ANY(c.confkey)) AS target,
           EXISTS (SELECT FROM pg_index x
                    WHERE x.indrelid = c.conrelid AND x.indkey[0] = c.conkey[1] AND x.indpred IS NULL) AS indexed
      FROM pg_constraint c
     WHERE c.confrelid = to_regclass(:table) AND c.contype = 'f' AND c.conparentid = 0
     ORDER BY 2, 1
""")


@dataclass(frozen=True, slots=True)
class Unique:
    """A unique index that ON CONFLICT on its columns can use, and whether it belongs to a constraint."""

    name: str
    is_constraint: bool


@dataclass(frozen=True, slots=True)
class Reference:
    """A foreign key to a table. `indexed` is whether an index begins with its first column."""

    name: str
    table: str
    columns: tuple[str, ...]
    target: tuple[str, ...]
    indexed: bool


def table_exists(conn: Connection, table: str) -> bool:
    """Return whether the search_path finds this table."""
    return qualified_name(conn, table) is not None


def qualified_name(conn: Connection, table: str) -> str | None:
    """Return the name of a table with its schema, quoted where necessary, or None if the table does not exist."""
    name: str | None = conn.scalar(_QUALIFIED, {"table": table})
    return name


def search_path(conn: Connection) -> str:
    """Return a description of the role's search_path, for the beginning of a sentence."""
    return f"The search_path of the role {role(conn)} ({conn.scalar(text('SHOW search_path'))})"


def role(conn: Connection) -> str:
    """Return the name of this connection's role, quoted where necessary."""
    return str(conn.scalar(text("SELECT quote_ident(current_user)")))


def find_unique(conn: Connection, table: str, columns: Sequence[str]) -> Unique | None:
    """Return a unique index on exactly these columns, in any order and with any name. Constraints come first.

    Deferrable, partial, expression and invalid indexes are skipped, because ON CONFLICT cannot use them.
    """
    for row in conn.execute(_UNIQUE, {"table": table}):
        if row.usable and sorted(row.columns) == sorted(columns):
            return Unique(row.name, row.is_constraint)
    return None


def references_to(conn: Connection, table: str) -> list[Reference]:
    """Return the foreign keys to this table. Of a partitioned table, return only those of the parent."""
    rows = conn.execute(_REFERENCES, {"table": table})
    return [Reference(r.name, r.table_name, tuple(r.columns), tuple(r.target), r.indexed) for r in rows]


def constraint_comment(conn: Connection, table: str, name: str) -> str | None:
    """Return the comment on a constraint, or None without the constraint or the comment."""
    found = text("""
        SELECT obj_description(oid, 'pg_constraint') FROM pg_constraint
         WHERE conrelid = to_regclass(:table) AND conname = :name
    """)
    comment: str | None = conn.scalar(found, {"table": table, "name": name})
    return comment


_KEYS = text("""
    SELECT format('%I.%I', n.nspname, c.relname) AS table_name, quote_ident(a.attname) AS column_name,
           CAST(CAST(s.oid AS regclass) AS text) AS sequence
      FROM pg_index i
      JOIN pg_class x ON x.oid = i.indexrelid
      JOIN pg_class c ON c.oid = i.indrelid
      JOIN pg_namespace n ON n.oid = c.relnamespace
      JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
      JOIN pg_depend d ON d.refclassid = CAST('pg_class' AS regclass) AND d.deptype IN ('a', 'i', 'n')
      JOIN pg_class s ON s.relkind = 'S'
      LEFT JOIN pg_attrdef f ON f.adrelid = c.oid AND f.adnum = a.attnum
     WHERE i.indisprimary AND i.indnkeyatts = 1 AND x.relname = :index
       AND ((d.objid = s.oid AND d.refobjid = c.oid AND d.refobjsubid = a.attnum)
            OR (d.classid = CAST('pg_attrdef' AS regclass) AND d.objid = f.oid AND d.refobjid = s.oid))
""")


async def repair_of_sequence(conn: AsyncConnection, index: str) -> str:
    """Return how to repair the sequence of the primary key `index`, if it is behind its table; otherwise ''."""
    for table, column, sequence in (await conn.execute(_KEYS, {"index": index})).all():
        found = await conn.execute(text(f"SELECT s.last_value, (SELECT max({column}) FROM {table}) FROM {sequence} s"))
        last, greatest = found.one()
        if greatest is not None and last < greatest:
            return (
                f"the sequence {sequence} is at {last}, below the greatest {column} of {table}, {greatest}. Run: "
                f"SELECT setval('{sequence}', (SELECT max({column}) FROM {table}))"
            )
    return ""
