"""Counts of each minute, of all processes together

The charts of the overview use this table. Rows are removed after 48 hours.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "minute_samples"
down_revision = "run_phases"
branch_labels = None
depends_on = None

_CREATE = """
    CREATE TABLE IF NOT EXISTS levelsync.minute_samples (
        minute timestamptz PRIMARY KEY,
        events jsonb NOT NULL DEFAULT '{}',
        delays jsonb NOT NULL DEFAULT '{}',
        lag bigint,
        drift bigint,
        dead_letters bigint
    )
"""


def upgrade() -> None:
    """Create the table where it does not exist yet. The previous release does not use it."""
    op.get_bind().execute(text(_CREATE))


def downgrade() -> None:
    """Drop the table."""
    op.get_bind().execute(text("DROP TABLE IF EXISTS levelsync.minute_samples"))
