"""The revision unique_progress_constraint: duplicates are removed, and the constraint is created."""

import json

import asyncpg
import pytest

from tests.support import application

NAME = "uq_specialization_progress_user_spec"
REVISION = "unique_progress_constraint"
UNIQUES = "SELECT conname FROM pg_constraint WHERE conrelid = 'specialization_progress'::regclass AND contype = 'u'"


def _rows(*values: str) -> str:
    columns = "id, student_id, specialization_id, current_level, updated_at"
    return f"INSERT INTO specialization_progress ({columns}) VALUES {', '.join(values)}"


CASES = {
    "level": (["3, NULL", "5, NULL", "4, now()"], 1),
    "a level beats none": (["NULL, now()", "1, NULL"], 1),
    "latest update": (["4, '2025-02-01'", "4, '2025-01-01'"], 0),
    "a time beats none": (["4, '2025-02-01'", "4, NULL"], 0),
    "highest id": (["4, NULL", "4, NULL"], 1),
    "all missing": (["NULL, NULL", "NULL, NULL"], 1),
}
"""Levels and times of the rows of one student, and the row that stays."""


async def test_the_kept_row_is_chosen_by(url: str) -> None:
    """The highest level, then the latest update, then the highest id. A missing value counts lowest."""
    students = dict(enumerate(CASES, 5))
    rows = [
        f"({student}{number}, {student}, 'COACH', {values})"
        for student, case in students.items()
        for number, values in enumerate(CASES[case][0])
    ]
    await application.make_application(url, _rows(*rows))
    await application.upgrade(url, REVISION)
    kept = await application.rows(url, "SELECT student_id, id % 10 FROM specialization_progress WHERE student_id >= 5")
    assert {students[student]: number for student, number in kept} == {case: kept for case, (_, kept) in CASES.items()}
    assert len(kept) == len(CASES)


async def test_removed_rows_are_kept_as_json_and_their_ids_logged(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    await application.make_application(
        url,
        _rows("(101, 5, 'COACH', 1, NULL)", "(102, 5, 'COACH', 2, NULL)", "(103, 5, 'COACH', 3, NULL)"),
        _rows("(104, 6, 'COACH', 1, NULL)", "(105, 5, 'PLAYER', 1, NULL)"),
    )
    await application.upgrade(url, REVISION)
    left = await application.rows(url, "SELECT id FROM specialization_progress WHERE id > 100 ORDER BY id")
    assert left == [(103,), (104,), (105,)]
    assert "ids: 101, 102" in capsys.readouterr().err
    query = "SELECT table_name, row_id, row, revision FROM levelsync.removed_rows ORDER BY row_id"
    table, row_id, row, revision = (await application.rows(url, query))[0]
    assert (table, row_id, revision) == ("specialization_progress", 101, "unique_progress_constraint")
    assert json.loads(row)["current_level"] == 1
    assert json.loads(row)["theory_hours_completed"] == 0


async def test_rows_without_a_user_are_no_duplicates(url: str) -> None:
    """NULL is not equal to NULL, so the constraint allows them."""
    await application.make_application(url, _rows("(101, NULL, 'COACH', 1, NULL)", "(102, NULL, 'COACH', 1, NULL)"))
    await application.upgrade(url, REVISION)
    assert await application.value(url, "SELECT count(*) FROM specialization_progress WHERE id > 100") == 2


@pytest.mark.parametrize(
    ("name", "columns"), [(NAME, "student_id, specialization_id"), ("mine", "specialization_id, student_id")]
)
async def test_an_existing_constraint_is_kept_and_reported(
    url: str, capsys: pytest.CaptureFixture[str], name: str, columns: str
) -> None:
    """Whatever its name and the order of its columns. A downgrade leaves what it did not create."""
    unique = f"ALTER TABLE specialization_progress ADD CONSTRAINT {name} UNIQUE ({columns})"
    await application.make_application(url, unique)
    await application.upgrade(url, REVISION)
    assert f"has {name} already" in capsys.readouterr().err
    assert await application.rows(url, UNIQUES) == [(name,)]
    await application.downgrade(url)
    assert await application.rows(url, UNIQUES) == [(name,)]


@pytest.mark.parametrize(
    "change",
    [
        "CREATE UNIQUE INDEX mine ON specialization_progress (student_id, specialization_id)",
        "CREATE UNIQUE INDEX mine ON specialization_progress (student_id, specialization_id) WHERE current_level > 0",
        "ALTER TABLE specialization_progress ADD CONSTRAINT mine UNIQUE (student_id, specialization_id) DEFERRABLE",
    ],
    ids=["index", "partial index", "deferrable"],
)
async def test_an_index_or_a_deferrable_constraint_is_not_enough(url: str, change: str) -> None:
    """The user's check looks for a constraint, and ON CONFLICT needs one that is whole and immediate."""
    await application.make_application(url, change)
    await application.upgrade(url, REVISION)
    assert (NAME,) in await application.rows(url, UNIQUES)
    assert "mine" in await application.structure(url)


@pytest.mark.parametrize(
    "change",
    [
        f"ALTER TABLE specialization_progress ADD CONSTRAINT {NAME} UNIQUE (student_id, specialization_id, id)",
        f"ALTER TABLE specialization_progress ADD CONSTRAINT {NAME} CHECK (id > 0)",
        f"CREATE TABLE {NAME} (x int)",
    ],
)
async def test_a_name_that_something_else_has_is_refused_with_a_sentence(url: str, change: str) -> None:
    await application.make_application(url, change, _rows("(101, 5, 'COACH', 1, NULL)", "(102, 5, 'COACH', 2, NULL)"))
    assert f"needs {NAME}" in await application.refused(url)
    assert await application.value(url, "SELECT count(*) FROM specialization_progress") == 3


async def test_a_later_duplicate_is_refused(database_url: str) -> None:
    await application.execute(database_url, _rows("(9001, 1, 'PLAYER', 7, NULL)"))
    with pytest.raises(asyncpg.UniqueViolationError, match=NAME):
        await application.execute(database_url, _rows("(9002, 1, 'PLAYER', 8, NULL)"))


async def test_references_to_a_removed_row_follow_the_kept_one(url: str) -> None:
    """A cascade would delete the application's rows."""
    await application.make_application(
        url,
        _rows("(101, 5, 'COACH', 1, NULL)", "(102, 5, 'COACH', 2, NULL)"),
        "CREATE TABLE badges (id int, progress_id int REFERENCES specialization_progress ON DELETE CASCADE)",
        "INSERT INTO badges VALUES (1, 101), (2, 102)",
    )
    await application.upgrade(url, REVISION)
    assert await application.rows(url, "SELECT * FROM badges ORDER BY id") == [(1, 102), (2, 102)]
