"""Stored functions that notice another column of maxima

When the column `max_levels` is dropped or created again, appliers read the curriculum again.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.store.functions import create_v1

revision = "column_of_maxima"
down_revision = "plain_comments"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the functions again."""
    create_v1(op.get_bind())


def downgrade() -> None:
    """Keep the functions, because the previous release works with them."""
