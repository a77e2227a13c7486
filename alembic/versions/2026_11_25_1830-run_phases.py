"""When a run's step began, and how much time it has left

Commands, the API and the page show both values, whichever process takes the step.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "run_phases"
down_revision = "max_lowered"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the columns where they do not exist yet. The previous release writes rows without them."""
    op.get_bind().execute(
        text("""
        ALTER TABLE levelsync.reconcile_runs
          ADD COLUMN IF NOT EXISTS step_began_at timestamptz,
          ADD COLUMN IF NOT EXISTS seconds_left double precision
        """)
    )


def downgrade() -> None:
    """Remove the columns."""
    op.get_bind().execute(
        text("""
        ALTER TABLE levelsync.reconcile_runs DROP COLUMN IF EXISTS seconds_left, DROP COLUMN IF EXISTS step_began_at
        """)
    )
