"""Stored functions that cost less for a small batch

The functions have the same names and results. Earlier releases call them too.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.store.functions import create_v1

revision = "quicker_functions"
down_revision = "comments"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the functions again."""
    create_v1(op.get_bind())


def downgrade() -> None:
    """Keep the functions, because the previous release works with them."""
