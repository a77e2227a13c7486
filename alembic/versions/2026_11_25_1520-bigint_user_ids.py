"""User ids as bigint

An application may use bigint for the ids of its users. This revision changes levelsync's columns of user ids and the
views that show them. PostgreSQL rewrites the tables under an exclusive lock, which takes some seconds for a million
fences. Runs and issues are few. The previous release works with the wider columns.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import catalog, revisions

revision = "bigint_user_ids"
down_revision = "operate"
branch_labels = None
depends_on = None

VIEWS = ("levelsync.drift", "levelsync.complete_scans", "levelsync.pairs")
# The reconciler locks the tables in this order.
LOCK = """
    LOCK TABLE levelsync.reconcile_runs, levelsync.reconcile_ranges, levelsync.drift_issues, levelsync.fences
      IN ACCESS EXCLUSIVE MODE
"""
COLUMNS = (
    "ALTER TABLE levelsync.reconcile_runs ALTER COLUMN user_id TYPE bigint",
    """
    ALTER TABLE levelsync.reconcile_ranges
        ALTER COLUMN after_user TYPE bigint, ALTER COLUMN upto_user TYPE bigint
    """,
    "ALTER TABLE levelsync.drift_issues ALTER COLUMN user_id TYPE bigint",
    "ALTER TABLE levelsync.fences ALTER COLUMN user_id TYPE bigint",
)
# The tables are named with their schema, because a reader of the view may have another search_path. Names are compared
# as text, because one of the columns may be an enum.
READ_PAIRS = """
    CREATE FUNCTION levelsync.read_pairs()
        RETURNS TABLE (user_id bigint, specialization text, progress_level integer, license_level integer, state text)
        LANGUAGE sql STABLE AS $body$
    SELECT coalesce(p.student_id, l.user_id)::bigint,
           coalesce(p.specialization_id::text, l.specialization_type::text),
           p.current_level::integer,
           l.current_level::integer,
           CASE WHEN l.id IS NULL THEN 'missing_license'
                WHEN p.id IS NULL THEN 'missing_progress'
                WHEN p.current_level IS NULL THEN 'null_level'
                WHEN p.current_level = l.current_level THEN 'in_sync'
                ELSE 'mismatched' END
      FROM {progress} p
      FULL JOIN {licenses} l
        ON l.user_id = p.student_id AND l.specialization_type::text = p.specialization_id::text
    $body$
"""


def upgrade() -> None:
    """Widen the columns, and create the views again with their previous rights."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    conn.execute(text(LOCK))
    with revisions.set_aside(conn, VIEWS):
        for statement in COLUMNS:
            conn.execute(text(statement))
        conn.execute(text("DROP FUNCTION levelsync.read_pairs()"))
        names = {
            "progress": catalog.qualified_name(conn, "specialization_progress"),
            "licenses": catalog.qualified_name(conn, "user_licenses"),
        }
        conn.execute(text(READ_PAIRS.format(**names)))


def downgrade() -> None:
    """Leave the wider columns. The previous release works with them, and an id may be too large for integer."""
    revisions.log.info("The columns of user ids stay bigint: the previous release works with them")
