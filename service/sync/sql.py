"""The statements of syncs beside the write path (`service.apply.rows`)."""

from __future__ import annotations

from sqlalchemy import TextClause, text

from service.core.names import folded
from service.store.comparison import (
    OF_ONE_LICENSE,
    OF_ONE_PROGRESS,
    PROGRESS_OF_THE_NAME,
    TOLD_BY_ITS_LICENSE,
    compared,
)

USER_EXISTS = text("SELECT EXISTS (SELECT FROM users WHERE id = CAST(:user AS bigint))")

RENAME_LICENSE = text("""
    UPDATE user_licenses SET specialization_type = :specialization, updated_at = clock_timestamp()
     WHERE id = :id AND specialization_type <> :specialization
 RETURNING id
""")
"""Write a license's specialization as `specializations` has it."""

OTHER_LICENSES = text(f"""
    SELECT id, specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
       AND id <> :id
     ORDER BY id
""")
"""Licenses of the same pair beside the one that counts, which differ in case only."""

LICENSES_OF_PAIR = text(f"""
    SELECT specialization_type FROM user_licenses
     WHERE user_id = CAST(:user AS bigint) AND {folded("specialization_type")} = {folded(":specialization")}
     ORDER BY id
""")
"""Every spelling under which a pair has a license."""

NEXT_WINDOW = text("""
    SELECT coalesce(
        (SELECT student_id FROM specialization_progress WHERE student_id >= CAST(:from_user AS bigint)
          ORDER BY student_id OFFSET :rows LIMIT 1),
        (SELECT user_id FROM user_licenses WHERE user_id >= CAST(:from_user AS bigint)
          ORDER BY user_id OFFSET :rows LIMIT 1))
""")
"""The user at which a window of so many rows of progress ends, or of licenses where progress ends before that; NULL
where both do. Counting both tables every time would cost as much again as comparing them."""


def issues(*, of_one_specialization: bool) -> TextClause:
    """Compare the tables as they are now; the kinds are law 8's. Only what differs leaves PostgreSQL."""
    progress, licenses = (OF_ONE_PROGRESS, OF_ONE_LICENSE) if of_one_specialization else ("true", "true")
    return text(f"""
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d LEFT JOIN users u ON u.id = d.user_id
         WHERE d.kind <> '{TOLD_BY_ITS_LICENSE}'
         ORDER BY d.user_id, d.specialization""")


def issues_of_window(*, of_one_specialization: bool) -> TextClause:
    """Compare the users of one window, behind a pair: what a page costs does not depend on where it begins.

    Materialized, so that the limit does not make PostgreSQL look up every row's specialization one by one: with it a
    window that holds no issue took twice as long.
    """
    progress = "student_id >= CAST(:from_user AS bigint) AND student_id <= CAST(:upto_user AS bigint)"
    licenses = "user_id >= CAST(:from_user AS bigint) AND user_id <= CAST(:upto_user AS bigint)"
    if of_one_specialization:
        progress, licenses = f"{progress} AND {OF_ONE_PROGRESS}", f"{licenses} AND {OF_ONE_LICENSE}"
    return text(f"""
        WITH differing AS MATERIALIZED (
            SELECT * FROM ({compared(progress, licenses, PROGRESS_OF_THE_NAME)}) d
             WHERE d.kind <> '{TOLD_BY_ITS_LICENSE}'
               AND (d.user_id, d.specialization) > (CAST(:after_user AS bigint), :after_specialization))
        SELECT d.user_id, u.email AS user_email, d.specialization, d.progress_level, d.license_level,
               d.kind AS issue_type
          FROM (SELECT * FROM differing ORDER BY user_id, specialization LIMIT :limit) d
          LEFT JOIN users u ON u.id = d.user_id
         ORDER BY d.user_id, d.specialization""")
