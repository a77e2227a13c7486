"""How many levels a run may lower

The asker has seen this number in a dry run. A run stops before its first write when more levels would fall.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "max_lowered"
down_revision = "level_functions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the column where it is not there yet. The previous release writes rows without it."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs ADD COLUMN IF NOT EXISTS max_lowered bigint"))


def downgrade() -> None:
    """Remove the column again."""
    op.get_bind().execute(text("ALTER TABLE levelsync.reconcile_runs DROP COLUMN IF EXISTS max_lowered"))
