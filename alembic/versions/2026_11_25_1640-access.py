"""Client addresses in the audit log, and ended sessions

The failed sign-ins of one address in one minute are one row, with their number. The page identifies a session by its
token. The table of ended sessions stores the digest of a signed-out token until the token expires.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

revision = "access"
down_revision = "wait_by_own_clock"
branch_labels = None
depends_on = None

_UP = (
    "ALTER TABLE levelsync.admin_actions ADD COLUMN IF NOT EXISTS client_address text NOT NULL DEFAULT ''",
    "ALTER TABLE levelsync.admin_actions ADD COLUMN IF NOT EXISTS times integer NOT NULL DEFAULT 1",
    """
    CREATE TABLE IF NOT EXISTS levelsync.ended_sessions (
        token_digest bytea PRIMARY KEY,
        ends_at timestamptz NOT NULL
    )
    """,
)
_DOWN = (
    "DROP TABLE IF EXISTS levelsync.ended_sessions",
    "ALTER TABLE levelsync.admin_actions DROP COLUMN IF EXISTS times",
    "ALTER TABLE levelsync.admin_actions DROP COLUMN IF EXISTS client_address",
)


def upgrade() -> None:
    """Add both. The columns have defaults, because the previous release writes rows without them."""
    for statement in _UP:
        op.get_bind().execute(text(statement))


def downgrade() -> None:
    """Remove the columns and the table."""
    for statement in _DOWN:
        op.get_bind().execute(text(statement))
