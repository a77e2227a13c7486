"""Comments on each view and column, for tools that show them

This revision describes the views and the tables that others may read.
"""  # noqa: D400, D415 - alembic logs the title as it is

import re
from importlib.resources import files

from alembic import op

revision = "comments"
down_revision = "minute_samples"
branch_labels = None
depends_on = None

_COMMENT = re.compile(r"^(COMMENT ON .+? IS)\n.+?;$", re.MULTILINE | re.DOTALL)
_OF_BEFORE = "COMMENT ON COLUMN levelsync.dead_letters.record_timestamp IS"


def upgrade() -> None:
    """Write the comments."""
    for comment in _COMMENT.finditer(_script()):
        op.get_bind().exec_driver_sql(comment[0])


def downgrade() -> None:
    """Remove the comments, except the one that existed before."""
    for comment in _COMMENT.finditer(_script()):
        if comment[1] != _OF_BEFORE:
            op.get_bind().exec_driver_sql(f"{comment[1]} NULL")


def _script() -> str:
    return files("service.store").joinpath("comments_v1.sql").read_text(encoding="utf-8")
