"""${message}

Describe here what changes, why, and what the downgrade leaves.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from service.store import revisions

revision = ${repr(up_revision)}
down_revision = ${repr(down_revision)}
branch_labels = None
depends_on = None
# If this removes, renames or narrows something that a release uses, name the first release that works without it:
# oldest_release = "1.2.3"


def upgrade() -> None:
    """Change the schema. It must be safe to run twice."""
    revisions.stop_where_parts_are_missing(op.get_bind())


def downgrade() -> None:
    """Remove only what the upgrade created."""
