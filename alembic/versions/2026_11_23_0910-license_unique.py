"""Add unique constraint to user_licenses where there is none

The upsert of a license needs it. Of duplicates the highest level stays, then the oldest id; every foreign key to
`user_licenses.id` is pointed at the row that stays, and the others are kept in `levelsync.removed_rows`.
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
    """Leave a unique index that is there, under whatever name; else remove duplicates and add the constraint."""
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
    """Drop the constraint if the upgrade made it."""
    revisions.drop_own_unique(op.get_bind(), TABLE, NAME, revision)
