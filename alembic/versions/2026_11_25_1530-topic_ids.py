"""Positions that belong to a topic, not to a topic's name

A topic that was deleted and created again has another id. After a log was truncated, its new records have another
leader epoch.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "topic_ids"
down_revision = "bigint_user_ids"
branch_labels = None
depends_on = None

_COLUMNS = (
    ("applied_offsets", "topic_id", "text NOT NULL DEFAULT ''"),
    ("applied_offsets", "leader_epoch", "integer NOT NULL DEFAULT -1"),
    ("reconcile_runs", "topic_ids", "jsonb NOT NULL DEFAULT '{}'::jsonb"),
)
"""Every column has a default, because the previous release writes rows without it during a rollout."""


def upgrade() -> None:
    """Add the columns that do not exist yet."""
    for table, column, kind in _COLUMNS:
        op.get_bind().execute(text(f"ALTER TABLE levelsync.{table} ADD COLUMN IF NOT EXISTS {column} {kind}"))


def downgrade() -> None:
    """Remove the columns."""
    for table, column, _kind in reversed(_COLUMNS):
        op.get_bind().execute(text(f"ALTER TABLE levelsync.{table} DROP COLUMN IF EXISTS {column}"))
