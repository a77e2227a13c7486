"""Add unique constraint to user_licenses where there is none

The upsert of a license needs the constraint. Of duplicate rows, the one with the highest level stays, then the one with
the lowest id. Every foreign key to `user_licenses.id` then refers to the row that stays. `levelsync.removed_rows`
stores the removed rows.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.store import catalog, revisions
from service.store.obstacles import LICENSE_DUPLICATES, differing_licenses
from service.store.revisions import Stop

revision = "license_unique"
down_revision = "levelsync_schema"
branch_labels = None
depends_on = None

TABLE, KEY = LICENSE_DUPLICATES.table, LICENSE_DUPLICATES.key
NAME = "uq_user_licenses_user_specialization"


def upgrade() -> None:
    """Keep an existing unique index of any name; otherwise remove duplicates and add the constraint."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    found = catalog.find_unique(conn, TABLE, KEY)
    if found is not None:
        revisions.log.info("%s is unique by %s already: nothing to do", TABLE, found.name)
        return
    revisions.lock(conn, TABLE)
    if LICENSE_DUPLICATES.find(conn):
        if undecided := differing_licenses(conn):
            raise Stop(undecided)
        LICENSE_DUPLICATES.remove(conn)
    revisions.add_unique(conn, TABLE, NAME, KEY, revision)


def downgrade() -> None:
    """Drop the constraint if the upgrade created it."""
    revisions.drop_own_unique(op.get_bind(), TABLE, NAME, revision)
