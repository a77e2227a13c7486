"""Fix INTERNSHIP level count - DB is source of truth (3 levels)

This revision sets `specializations.max_levels` and the comment on `internship_levels`. It counts pairs above level 3
but does not change them. A person has to decide these pairs.
"""  # noqa: D400, D415 - the title is fixed

from alembic import op
from sqlalchemy import Connection, text

from service.levels import has_column
from service.store import catalog, revisions
from service.store.revisions import changes

revision = "fix_internship_levels"
down_revision = "unique_progress_constraint"
branch_labels = None
depends_on = None

LEVELS = 3
COMMENT = """
    COMMENT ON TABLE internship_levels IS
'Startup Spirit Internship - 3 levels (Junior, Mid-level, Senior).
 Helper code MUST query DB dynamically, NOT use hardcoded max_levels=5.'
"""
PAIRS_ABOVE = """
    SELECT count(DISTINCT user_id) FROM (
        SELECT student_id AS user_id FROM specialization_progress
         WHERE specialization_id::text = 'INTERNSHIP' AND current_level > :levels
         UNION ALL
        SELECT user_id FROM user_licenses
         WHERE specialization_type::text = 'INTERNSHIP' AND current_level > :levels) AS above
"""


def upgrade() -> None:
    """Write the number of levels, and log the previous one."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    _set_max_levels(conn)
    _describe(conn)


def downgrade() -> None:
    """Leave both, because the previous number 5 was wrong."""
    revisions.log.info("specializations.max_levels and the comment on internship_levels are not changed")


def _set_max_levels(conn: Connection) -> None:
    if not has_column(conn):
        revisions.log.info("There is no column specializations.max_levels: no number of levels is changed")
        return
    before = conn.execute(
        text("SELECT max_levels FROM specializations WHERE id::text = 'INTERNSHIP' FOR UPDATE")
    ).one_or_none()
    if before is None:
        revisions.log.warning("There is no specialization INTERNSHIP: no number of levels is changed")
        return
    if before.max_levels != LEVELS:
        changes.add(f"set max_levels of INTERNSHIP from {before.max_levels} to {LEVELS}")
        conn.execute(
            text("UPDATE specializations SET max_levels = :levels WHERE id::text = 'INTERNSHIP'"), {"levels": LEVELS}
        )
    above = conn.scalar(text(PAIRS_ABOVE), {"levels": LEVELS})
    revisions.log.info("max_levels of INTERNSHIP was %s, is %s; pairs above it: %s", before.max_levels, LEVELS, above)


def _describe(conn: Connection) -> None:
    if not catalog.table_exists(conn, "internship_levels"):
        revisions.log.info("There is no table internship_levels: no comment is written and no rows are counted")
        return
    conn.execute(text(COMMENT))
    rows = conn.scalar(text("SELECT count(*) FROM internship_levels"))
    if rows != LEVELS:
        revisions.log.warning("internship_levels has %s rows, not %s: they are not changed", rows, LEVELS)
