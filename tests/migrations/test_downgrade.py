"""Going back: only what the upgrade made goes."""

import pytest

from tests.support import application

PROGRESS = """
    INSERT INTO specialization_progress (id, student_id, specialization_id, current_level)
    VALUES (101, 5, 'COACH', 1), (102, 5, 'COACH', 2)
"""


async def test_down_and_up_again_leaves_the_applications_rows_untouched(empty_database_url: str) -> None:
    """From any state after the first upgrade."""
    await application.make_application(empty_database_url, PROGRESS)
    await application.upgrade(empty_database_url)
    rows, tables = await application.content(empty_database_url), await application.structure(empty_database_url)
    await application.downgrade(empty_database_url)
    assert await application.content(empty_database_url) == rows
    await application.upgrade(empty_database_url)
    assert await application.content(empty_database_url) == rows
    assert await application.structure(empty_database_url) == tables


async def test_a_downgrade_gives_back_the_applications_structure(empty_database_url: str) -> None:
    """Both constraints were ours, so both go."""
    await application.make_application(empty_database_url)
    before = await application.structure(empty_database_url)
    await application.upgrade(empty_database_url)
    await application.downgrade(empty_database_url)
    assert await application.structure(empty_database_url) == before


async def test_a_downgrade_never_drops_a_table_of_the_application(empty_database_url: str) -> None:
    """Not even one that the base revision made, with all that is in it."""
    await application.upgrade(empty_database_url)
    before = await application.content(empty_database_url)
    await application.downgrade(empty_database_url)
    assert await application.content(empty_database_url) == before
    await application.upgrade(empty_database_url)
    assert await application.content(empty_database_url) == before


@pytest.mark.parametrize(("change", "stays"), [(PROGRESS, True), ("SELECT 1", False)])
async def test_removed_rows_outlive_a_downgrade(empty_database_url: str, change: str, stays: bool) -> None:
    """They are the only copy; an empty table goes."""
    await application.make_application(empty_database_url, change)
    await application.upgrade(empty_database_url)
    await application.downgrade(empty_database_url)
    left = await application.rows(
        empty_database_url, "SELECT tablename FROM pg_tables WHERE schemaname = 'levelsync' ORDER BY 1"
    )
    assert left == [("alembic_version",), *([("removed_rows",)] if stays else [])]
