"""Add unique constraint to specialization_progress

Of duplicate rows, the one with the highest level stays, then the one with the latest update, then the one with the
highest id. A missing level or time counts as the lowest. `levelsync.removed_rows` stores the removed rows as JSON.
Where the constraint exists, the revision does nothing.
"""  # noqa: D400, D415 - the title is fixed

from alembic import op
from sqlalchemy import text

from service.store import catalog, revisions
from service.store.obstacles import PROGRESS_DUPLICATES

revision = "unique_progress_constraint"
down_revision = "spec_level_system"
branch_labels = None
depends_on = None

TABLE, KEY = PROGRESS_DUPLICATES.table, PROGRESS_DUPLICATES.key
NAME = "uq_specialization_progress_user_spec"


def upgrade() -> None:
    """Remove duplicates and add the constraint."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    conn.execute(text(revisions.REMOVED_ROWS))
    found = catalog.find_unique(conn, TABLE, KEY)
    # A unique index that is not a constraint does not count, because users check for the constraint in psql.
    if found is not None and found.is_constraint:
        revisions.log.info("%s has %s already: nothing to do", TABLE, found.name)
        return
    revisions.lock(conn, TABLE)
    if PROGRESS_DUPLICATES.find(conn):
        PROGRESS_DUPLICATES.remove(conn)
    revisions.add_unique(conn, TABLE, NAME, KEY, revision)


def downgrade() -> None:
    """Drop the constraint if the upgrade created it. Keep the removed rows, because no other copy exists."""
    conn = op.get_bind()
    revisions.drop_own_unique(conn, TABLE, NAME, revision)
    if not conn.scalar(text("SELECT EXISTS (SELECT FROM levelsync.removed_rows)")):
        conn.execute(text("DROP TABLE levelsync.removed_rows"))
