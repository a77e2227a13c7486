"""Which releases may run on the schema

One row: the revision, and the oldest release that may run on it. Every migration writes it from now on, in its own
transaction (docs/decisions, "A schema says which releases may run on it").
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import revisions

revision = "schema_info"
down_revision = "topic_ids"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table; the row is written when this revision is done."""
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
    """Drop it: the releases before do not read it."""
    op.get_bind().execute(text("DROP TABLE IF EXISTS levelsync.schema_info"))
