"""Code that the revisions share: stopping with a sentence, locks, unique constraints, views, and comments."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.resources import files

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from service.faults import read_fault
from service.levels import missing_maxima
from service.store import catalog
from service.store.application import missing_parts

log = logging.getLogger("levelsync.migrate")


class Stop(Exception):  # noqa: N818 - a deliberate stop, before the revision changes anything
    """A migration found something that it must not change. The text names it, the reason and the remedy."""


class Changes:
    """The changes that the revisions of one migration made in the application's tables, as text.

    A process runs one migration at a time, and revisions are modules without parameters, so they share one instance.
    """

    def __init__(self) -> None:
        self._done: list[str] = []
        self._pending: list[str] = []

    def add(self, change: str) -> None:
        """Log and record a change of the current revision."""
        log.info("%s", change)
        self._pending.append(change)

    def commit(self, revision: str) -> None:
        """Record that a revision is done, with its changes."""
        self._done.append(": ".join([revision, *["; ".join(self._pending)]]) if self._pending else revision)
        self._pending = []

    def begin(self) -> None:
        """Delete the records of an earlier migration."""
        self._done, self._pending = [], []

    @property
    def before(self) -> str:
        """Return a sentence about the changes that remain although a revision stopped."""
        if not self._done:
            return "Nothing was changed."
        return f"This revision changed nothing. Revisions done before it: {'. '.join(self._done)}."


changes = Changes()


LOCK_NOT_AVAILABLE = "55P03"

REMOVED_ROWS = """
    CREATE TABLE IF NOT EXISTS levelsync.removed_rows (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        table_name text NOT NULL,
        row_id bigint NOT NULL,
        row jsonb NOT NULL,
        revision text NOT NULL,
        removed_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""

_NAME_IS_TAKEN = text("""
    SELECT EXISTS (SELECT FROM pg_class t JOIN pg_class c USING (relnamespace)
                    WHERE t.oid = to_regclass(:table) AND c.relname = :name)
        OR EXISTS (SELECT FROM pg_constraint WHERE conrelid = to_regclass(:table) AND conname = :name)
""")

_OTHER_READERS = text("""
    SELECT DISTINCT r.ev_class::regclass::text AS reader, d.refobjid::regclass::text AS view
      FROM pg_depend d
      JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid
     WHERE d.refobjid = ANY(CAST(:views AS regclass[])) AND r.ev_class <> ALL(CAST(:views AS regclass[]))
     ORDER BY 1, 2
""")
_GRANTS = text("""
    SELECT format('GRANT %s ON %s TO %s%s', a.privilege_type, c.oid::regclass,
                  CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END,
                  CASE WHEN a.is_grantable THEN ' WITH GRANT OPTION' ELSE '' END)
      FROM pg_class c CROSS JOIN aclexplode(c.relacl) a
     WHERE c.oid = CAST(:view AS regclass) AND a.grantee <> c.relowner
""")

_COMMENTS = text("""
    SELECT format('COMMENT ON %s IS %L', target, comment)
      FROM (SELECT format('VIEW %s', c.oid::regclass), obj_description(c.oid)
              FROM pg_class c WHERE c.oid = CAST(:view AS regclass)
             UNION ALL
            SELECT format('COLUMN %s.%I', a.attrelid::regclass, a.attname), col_description(a.attrelid, a.attnum)
              FROM pg_attribute a WHERE a.attrelid = CAST(:view AS regclass) AND a.attnum > 0) AS c (target, comment)
     WHERE comment IS NOT NULL
""")


_COMMENT = re.compile(r"^(COMMENT ON .+? IS)\n.+?;$", re.MULTILINE | re.DOTALL)


def stop_where_parts_are_missing(conn: Connection) -> None:
    """Check before any change that the application's database has what levelsync needs.

    Raises:
        Stop: Tables, columns or the highest levels are missing. The text names them.
    """
    missing = missing_parts(conn)
    if missing:
        raise Stop(f"This database lacks the {'; the '.join(missing)}.")
    if maxima := missing_maxima(conn):
        raise Stop(f"{maxima[0]}.")


def lock(conn: Connection, table: str) -> None:
    """Lock a table against all other sessions until the revision ends.

    It acquires the strongest lock directly. Acquiring it after a weaker one could deadlock with a transaction that has
    read the table.

    Raises:
        Stop: Another session held a lock for longer than `lock_timeout`.
    """
    try:
        conn.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
    except DBAPIError as error:
        if read_fault(error).sqlstate != LOCK_NOT_AVAILABLE:
            raise
        raise Stop(
            f"Another session held a lock on {table} for longer than this revision waits to add a unique constraint "
            f"there. Run levelsync migrate again at a quieter time. To see who holds the lock, run: SELECT a.pid, "
            f"a.query FROM pg_stat_activity a JOIN pg_locks l USING (pid) WHERE l.relation = '{table}'::regclass"
        ) from error


def add_unique(conn: Connection, table: str, name: str, columns: Sequence[str], revision: str) -> None:
    """Add a unique constraint with a comment that names this revision, so that a downgrade drops no other constraint.

    Raises:
        Stop: Something else has that name.
    """
    if conn.scalar(_NAME_IS_TAKEN, {"name": name, "table": table}):
        raise Stop(
            f"{table} needs {name} UNIQUE ({', '.join(columns)}), neither deferrable nor partial, because two "
            "concurrent events would create two rows. Something else has that name: rename or drop it, then run "
            "levelsync migrate again."
        )
    conn.execute(text(f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE ({', '.join(columns)})"))
    conn.execute(text(f"COMMENT ON CONSTRAINT {name} ON {table} IS '{_mark(revision)}'"))
    changes.add(f"Added {name} UNIQUE ({', '.join(columns)}) on {table}")


def drop_own_unique(conn: Connection, table: str, name: str, revision: str) -> None:
    """Drop a unique constraint if this revision created it. Otherwise log that there is nothing to remove."""
    if catalog.constraint_comment(conn, table, name) == _mark(revision):
        conn.execute(text(f"ALTER TABLE {table} DROP CONSTRAINT {name}"))
    else:
        log.info("%s has no %s that this revision created: nothing to remove", table, name)


@contextmanager
def set_aside(conn: Connection, views: Sequence[str]) -> Iterator[None]:
    """Drop views of levelsync, so that the columns that they read can change, and create them again afterwards.

    Their rights and comments are restored. `views` must be qualified and in the order in which they can be dropped.

    Raises:
        Stop: A view that is not levelsync's reads one of them.
    """
    others = [f"{row.reader} reads {row.view}" for row in conn.execute(_OTHER_READERS, {"views": list(views)})]
    if others:
        raise Stop(
            f"Views that are not levelsync's depend on views that this revision creates again: {'; '.join(others)}. "
            "Drop them, run levelsync migrate, and create them again."
        )
    kept: list[str] = []
    for view in views:
        definition = conn.scalar(text("SELECT pg_get_viewdef(CAST(:view AS regclass))"), {"view": view})
        rights_and_comments = [
            *conn.execute(_GRANTS, {"view": view}).scalars(),
            *conn.execute(_COMMENTS, {"view": view}).scalars(),
        ]
        kept = [f"CREATE VIEW {view} AS {definition}", *rights_and_comments, *kept]
        conn.execute(text(f"DROP VIEW {view}"))
    yield
    for statement in kept:
        conn.exec_driver_sql(statement)


def write_comments(conn: Connection) -> None:
    """Write the comments on the views and tables that others may read."""
    for comment in _COMMENT.finditer(_comments()):
        conn.exec_driver_sql(comment[0])


def remove_comments(conn: Connection, keep: str) -> None:
    """Remove these comments, except one. `keep` is its statement up to IS."""
    for comment in _COMMENT.finditer(_comments()):
        if comment[1] != keep:
            conn.exec_driver_sql(f"{comment[1]} NULL")


def _comments() -> str:
    return files("service.store").joinpath("comments_v1.sql").read_text(encoding="utf-8")


def _mark(revision: str) -> str:
    return f"made by levelsync, revision {revision}"
