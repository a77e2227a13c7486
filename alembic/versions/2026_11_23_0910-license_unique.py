"""Add unique constraint to user_licenses where there is none

The upsert of a license needs it (R9a). Of duplicates the highest level stays, then the oldest id; every foreign key to
`user_licenses.id` is pointed at the row that stays, and the others are kept in `levelsync.removed_rows`.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op

from service.database import catalog, revisions
from service.database.application import LICENSE_COLUMNS
from service.database.duplicates import Duplicates

revision = "license_unique"
down_revision = "levelsync_schema"
branch_labels = None
depends_on = None

TABLE = "user_licenses"
KEY = ("user_id", "specialization_type")
NAME = "uq_user_licenses_user_specialization"
ORDER = "current_level DESC NULLS LAST, id"


def upgrade() -> None:
    """Leave a unique index that is there, under whatever name; else remove duplicates and add the constraint."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    found = catalog.find_unique(conn, TABLE, KEY)
    if found is not None:
        revisions.log.info("%s is unique by %s already: nothing to do", TABLE, found.name)
        return
    revisions.lock(conn, TABLE)
    duplicates = Duplicates(TABLE, KEY, ORDER, revision)
    if duplicates.find(conn):
        duplicates.stop_where_others_differ(conn, LICENSE_COLUMNS)
        duplicates.remove(conn)
    revisions.add_unique(conn, TABLE, NAME, KEY, revision)


def downgrade() -> None:
    """Drop the constraint if the upgrade made it."""
    revisions.drop_own_unique(op.get_bind(), TABLE, NAME, revision)
