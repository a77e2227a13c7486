"""Audit log, columns for replayed dead letters, and complete scans

The tables are those of `service/store/tables.py`.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import revisions

revision = "operate"
down_revision = "reconcile"
branch_labels = None
depends_on = None

_DRIFT = """
    CREATE OR REPLACE VIEW levelsync.drift AS
    SELECT i.user_id, i.specialization, i.kind, i.progress_level, i.license_level, i.seen_at, i.run_id
      FROM levelsync.drift_issues i
     WHERE i.status = 'confirmed' AND i.run_id = ({last_scan})
"""
_LAST_SCAN = "SELECT c.run_id FROM levelsync.complete_scans c ORDER BY c.finished_at DESC LIMIT 1"
_LAST_SCAN_BEFORE = """
    SELECT r.id FROM levelsync.reconcile_runs r
     WHERE r.status = 'completed' AND r.specialization IS NULL AND r.user_id IS NULL
     ORDER BY r.finished_at DESC LIMIT 1
"""

DDL = (
    """
    CREATE TABLE IF NOT EXISTS levelsync.admin_actions (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        at timestamptz NOT NULL DEFAULT clock_timestamp(),
        subject text NOT NULL,
        role text NOT NULL,
        action text NOT NULL,
        arguments jsonb NOT NULL DEFAULT '{}',
        outcome text NOT NULL,
        detail text NOT NULL DEFAULT '',
        request_id text NOT NULL DEFAULT ''
    )
    """,
    "CREATE INDEX IF NOT EXISTS ix_admin_actions_at ON levelsync.admin_actions (at)",
    "ALTER TABLE levelsync.dead_letters ADD COLUMN IF NOT EXISTS replayed_at timestamptz",
    "ALTER TABLE levelsync.dead_letters ADD COLUMN IF NOT EXISTS last_attempt_timestamp bigint",
    "ALTER TABLE levelsync.dead_letters ADD COLUMN IF NOT EXISTS resolved_by text",
    """
    CREATE INDEX IF NOT EXISTS ix_dead_letters_resolved ON levelsync.dead_letters (resolved_at)
     WHERE resolved_at IS NOT NULL
    """,
    # The replay of a tombstone that became a dead letter has no value.
    "ALTER TABLE levelsync.outbox ALTER COLUMN value DROP NOT NULL",
    # A scan that could not confirm every suspect proves neither drift nor agreement.
    """
    CREATE OR REPLACE VIEW levelsync.complete_scans AS
    SELECT r.id AS run_id, r.finished_at, r.counts
      FROM levelsync.reconcile_runs r
     WHERE r.status = 'completed' AND r.specialization IS NULL AND r.user_id IS NULL
       AND coalesce((r.counts ->> 'unconfirmed')::bigint, 0) = 0
    """,
    _DRIFT.format(last_scan=_LAST_SCAN),
)


def upgrade() -> None:
    """Add what does not exist yet."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    for statement in DDL:
        conn.execute(text(statement))


def downgrade() -> None:
    """Remove what the upgrade added, and tombstones that are still in the outbox."""
    conn = op.get_bind()
    conn.execute(text(_DRIFT.format(last_scan=_LAST_SCAN_BEFORE)))
    conn.execute(text("DROP VIEW IF EXISTS levelsync.complete_scans"))
    conn.execute(text("DELETE FROM levelsync.outbox WHERE value IS NULL"))
    conn.execute(text("ALTER TABLE levelsync.outbox ALTER COLUMN value SET NOT NULL"))
    conn.execute(text("DROP INDEX IF EXISTS levelsync.ix_dead_letters_resolved"))
    for column in ("resolved_by", "last_attempt_timestamp", "replayed_at"):
        conn.execute(text(f"ALTER TABLE levelsync.dead_letters DROP COLUMN IF EXISTS {column}"))
    conn.execute(text("DROP TABLE IF EXISTS levelsync.admin_actions"))
