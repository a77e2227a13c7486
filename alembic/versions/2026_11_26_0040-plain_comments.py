"""Comments on each view and column in plain words

The texts of `comments` have changed, and this revision writes them again.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.store import revisions

revision = "plain_comments"
down_revision = "quicker_functions"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replace the comments."""
    revisions.write_comments(op.get_bind())


def downgrade() -> None:
    """Keep the comments, because the previous release does not read them."""
