"""Tables and views of the reconciler

The tables are those of `service/store/tables.py`. Dashboards read the views.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import revisions

revision = "reconcile"
down_revision = "license_unique"
branch_labels = None
depends_on = None

DDL = (
    """
    CREATE TABLE IF NOT EXISTS levelsync.reconcile_runs (
        id uuid PRIMARY KEY,
        status text NOT NULL DEFAULT 'planning',
        phase integer NOT NULL DEFAULT 0,
        step text NOT NULL DEFAULT 'plan',
        direction text NOT NULL,
        dry_run boolean NOT NULL,
        force boolean NOT NULL,
        specialization text,
        user_id integer,
        requested_by text,
        requested_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        finished_at timestamptz,
        due_at timestamptz,
        give_up_at timestamptz,
        end_offsets jsonb,
        would_stop boolean NOT NULL DEFAULT false,
        counts jsonb NOT NULL DEFAULT '{}',
        detail text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX IF NOT EXISTS ix_reconcile_runs_requested ON levelsync.reconcile_runs (requested_at)",
    """
    CREATE INDEX IF NOT EXISTS ix_reconcile_runs_due ON levelsync.reconcile_runs (due_at) WHERE finished_at IS NULL
    """,
    """
    CREATE TABLE IF NOT EXISTS levelsync.reconcile_ranges (
        run_id uuid REFERENCES levelsync.reconcile_runs (id) ON DELETE CASCADE,
        chunk integer,
        after_user integer NOT NULL,
        upto_user integer NOT NULL,
        done_phase integer NOT NULL DEFAULT 0,
        sent_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        suspects jsonb NOT NULL DEFAULT '[]',
        suspect_count integer NOT NULL DEFAULT 0,
        counts jsonb NOT NULL DEFAULT '{}',
        PRIMARY KEY (run_id, chunk)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS levelsync.drift_issues (
        run_id uuid REFERENCES levelsync.reconcile_runs (id) ON DELETE CASCADE,
        user_id integer,
        specialization text,
        kind text NOT NULL,
        progress_level integer,
        license_level integer,
        status text NOT NULL,
        detail text NOT NULL DEFAULT '',
        seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (run_id, user_id, specialization)
    )
    """,
    """
    CREATE OR REPLACE FUNCTION levelsync.read_pairs()
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
      FROM specialization_progress p
      FULL JOIN user_licenses l ON l.user_id = p.student_id AND l.specialization_type::text = p.specialization_id::text
    $body$
    """,
    # A view on the tables themselves would prevent the application from changing or dropping one of its columns.
    "CREATE OR REPLACE VIEW levelsync.pairs AS SELECT * FROM levelsync.read_pairs()",
    """
    CREATE OR REPLACE VIEW levelsync.run_summary AS
    SELECT r.id AS run_id, r.status, r.direction, r.dry_run, r.requested_by, r.requested_at, r.finished_at,
           r.finished_at - r.requested_at AS duration, r.would_stop,
           r.counts
      FROM levelsync.reconcile_runs r
    """,
    """
    CREATE OR REPLACE VIEW levelsync.drift AS
    SELECT i.user_id, i.specialization, i.kind, i.progress_level, i.license_level, i.seen_at, i.run_id
      FROM levelsync.drift_issues i
     WHERE i.status = 'confirmed'
       AND i.run_id = (SELECT r.id FROM levelsync.reconcile_runs r
                        WHERE r.status = 'completed' AND r.specialization IS NULL AND r.user_id IS NULL
                        ORDER BY r.finished_at DESC LIMIT 1)
    """,
)


def upgrade() -> None:
    """Create the tables and views that do not exist yet."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    for statement in DDL:
        conn.execute(text(statement))


def downgrade() -> None:
    """Drop the tables and views, which belong to levelsync."""
    for view in ("drift", "run_summary", "pairs"):
        op.get_bind().execute(text(f"DROP VIEW IF EXISTS levelsync.{view}"))
    op.get_bind().execute(text("DROP FUNCTION IF EXISTS levelsync.read_pairs()"))
    for table in ("drift_issues", "reconcile_ranges", "reconcile_runs"):
        op.get_bind().execute(text(f"DROP TABLE IF EXISTS levelsync.{table}"))
