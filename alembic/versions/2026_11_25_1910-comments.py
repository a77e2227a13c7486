"""Comments on each view and column, for tools that show them

This revision describes the views and the tables that others may read.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.store import revisions

revision = "comments"
down_revision = "minute_samples"
branch_labels = None
depends_on = None

_OF_BEFORE = "COMMENT ON COLUMN levelsync.dead_letters.record_timestamp IS"


def upgrade() -> None:
    """Write the comments."""
    revisions.write_comments(op.get_bind())


def downgrade() -> None:
    """Remove the comments, except the one that existed before."""
    revisions.remove_comments(op.get_bind(), keep=_OF_BEFORE)
