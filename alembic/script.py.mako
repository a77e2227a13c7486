"""${message}

Say here what is changed, why, and what the downgrade leaves.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from service.store import revisions

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
# Where this removes, renames or narrows what a release uses: oldest_release = "the first that does without it".


def upgrade() -> None:
    """Safe to run twice."""
    revisions.stop_where_parts_are_missing(op.get_bind())


def downgrade() -> None:
    """Remove only what the upgrade made."""
