"""Which releases may run on the schema

The table has one row: the revision, and the oldest release that may run on it. From now on, the transaction of every
migration writes this row (docs/decisions, "A schema says which releases may run on it").
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import revisions

revision = "schema_info"
down_revision = "topic_ids"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table. The row is written at the end of this revision."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    conn.execute(
        text("""
            CREATE TABLE IF NOT EXISTS levelsync.schema_info (
                id integer PRIMARY KEY DEFAULT 1 CONSTRAINT ck_schema_info_one_row CHECK (id = 1),
                revision text NOT NULL,
                oldest_release text NOT NULL
            )
        """)
    )


def downgrade() -> None:
    """Drop the table, which earlier releases do not read."""
    op.get_bind().execute(text("DROP TABLE IF EXISTS levelsync.schema_info"))
