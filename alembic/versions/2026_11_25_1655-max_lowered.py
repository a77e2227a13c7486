"""How many levels a run may lower

A dry run has shown this number to the person who requests the run. The run stops before its first write when more
levels would fall.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "max_lowered"
down_revision = "level_functions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column where it does not exist yet. The previous release writes rows without it."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs ADD COLUMN IF NOT EXISTS max_lowered bigint"))


def downgrade() -> None:
    """Remove the column."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs DROP COLUMN IF EXISTS max_lowered"))
