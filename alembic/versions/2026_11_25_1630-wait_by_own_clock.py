"""How long a run's step waits, so that each process counts with its own clock

With a point in time in the row, a clock that is set forward or back would shorten or lengthen the wait.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "wait_by_own_clock"
down_revision = "schema_info"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column where it does not exist yet. The previous release writes rows without it."""
    op.get_bind().execute(
        text(
            "ALTER TABLE levelsync.reconcile_runs"
            " ADD COLUMN IF NOT EXISTS wait_seconds double precision NOT NULL DEFAULT 0"
        )
    )


def downgrade() -> None:
    """Remove the column."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs DROP COLUMN IF EXISTS wait_seconds"))
