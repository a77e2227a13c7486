"""How long a run's step waits, for whoever counts it by their own clock

A time in the row would be believed by every process, and a step of any clock would change it.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "wait_by_own_clock"
down_revision = "schema_info"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column where it is not there yet. The previous release writes rows without it."""
    op.get_bind().execute(
        text(
            "ALTER TABLE levelsync.reconcile_runs"
            " ADD COLUMN IF NOT EXISTS wait_seconds double precision NOT NULL DEFAULT 0"
        )
    )


def downgrade() -> None:
    """Remove the column again."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs DROP COLUMN IF EXISTS wait_seconds"))
