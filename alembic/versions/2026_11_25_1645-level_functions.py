"""The functions that write levels, and the folded name of fences

A fence keeps the spelling of its specialization, because the previous release looks for that spelling. This release
compares the generated column. The functions do not affect the previous release.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import functions, revisions

revision = "level_functions"
down_revision = "access"
branch_labels = None
depends_on = None

DDL = (
    """
    ALTER TABLE levelsync.fences
      ADD COLUMN IF NOT EXISTS folded text NOT NULL GENERATED ALWAYS AS (upper(specialization COLLATE "C")) STORED
    """,
    "CREATE INDEX IF NOT EXISTS ix_fences_folded ON levelsync.fences (user_id, folded)",
)


def upgrade() -> None:
    """Add the column, the index and the functions that do not exist yet."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    for statement in DDL:
        conn.execute(text(statement))
    functions.create_v1(conn)


def downgrade() -> None:
    """Drop the functions, the index and the column."""
    conn = op.get_bind()
    functions.drop_v1(conn)
    conn.execute(text("DROP INDEX IF EXISTS levelsync.ix_fences_folded"))
    conn.execute(text("ALTER TABLE levelsync.fences DROP COLUMN IF EXISTS folded"))
