"""Each refusal names the table or column, the reason, and the statement that helps."""

import asyncio
import re

import pytest

from service.checks import EDGE_CASES, INSTALLATION, Finding
from service.process.startup import wait_until_ready
from service.settings import Settings
from service.store.engine import make_engine
from service.telemetry.health import Health
from tests.support import application
from tests.support.waiting import eventually

DIFFERENT_LICENSES = (
    "INSERT INTO user_licenses (id, user_id, specialization_type, current_level, started_at, paid)"
    " VALUES (101, 5, 'COACH', 2, '2025-01-01', true), (102, 5, 'COACH', 4, '2025-02-01', false)"
)
DUPLICATE_PROGRESS = (
    "INSERT INTO specialization_progress (student_id, specialization_id, current_level)"
    " VALUES (5, 'COACH', 1), (5, 'COACH', 2), (6, 'COACH', 1), (6, 'COACH', 1)"
)
_STATEMENT = re.compile(r"run: ((?:ALTER|GRANT) [^;.]+(?:\.[^;. ]+[^;.]*)*)")


def _statement(sentence: str) -> str:
    found = _STATEMENT.search(sentence)
    assert found is not None, sentence
    return found[1]


async def _check(url: str, name: str) -> Finding:
    (checker,) = [one for one in (*INSTALLATION, *EDGE_CASES) if one.__name__ == name]
    return await application.asked(url, checker)


@pytest.mark.parametrize(
    ("column", "why"),
    [
        ("user_licenses.last_advanced_at", "levelsync compares it with specialization_progress and writes levels"),
        ("specialization_progress.total_xp", "levelsync compares it with user_licenses and writes levels"),
        ("license_progressions.advancement_reason", "levelsync writes the history of licenses there"),
    ],
)
async def test_the_statement_for_a_missing_column_helps(url: str, column: str, why: str) -> None:
    table, _, name = column.partition(".")
    await application.make_application(url, f"ALTER TABLE {table} DROP COLUMN {name}")
    sentence = await application.refused(url)
    assert f"lacks the column public.{column}: {why}" in sentence
    assert sentence.endswith("Nothing was changed.")
    found = await _check(url, "migrations")
    assert f"levelsync migrate would stop: there is no column public.{column}: {why}" in found.detail
    assert found.advice == "Repair this, then run: levelsync migrate"
    await application.execute(url, _statement(sentence))
    await application.upgrade(url)
    assert (await _check(url, "migrations")).passed


async def test_licenses_that_differ_are_named_before_anything_is_changed_by_doctor(url: str) -> None:
    await application.make_application(url, DUPLICATE_PROGRESS, DIFFERENT_LICENSES)
    found = await _check(url, "migrations")
    assert "user_licenses has several rows for one pair (user_id, specialization_type)" in found.detail
    assert "(5, COACH) in paid" in found.detail
    sentence = await application.refused(url)
    assert "(5, COACH) in paid" in sentence
    assert sentence.endswith(
        "This revision changed nothing. Revisions done before it: spec_level_system. unique_progress_constraint: "
        "removed 2 duplicates from specialization_progress, stored in levelsync.removed_rows; Added "
        "uq_specialization_progress_user_spec UNIQUE (student_id, specialization_id) on specialization_progress. "
        "fix_internship_levels: set max_levels of INTERNSHIP from 5 to 3. levelsync_schema."
    )
    await application.execute(url, "DELETE FROM user_licenses WHERE id = 101")
    await application.upgrade(url)


async def test_a_role_without_ownership_is_given_the_statement_for_the_owner(url: str) -> None:
    """`doctor` reports it before the migration, with the statement for the owner."""
    await application.make_application(url)
    async with application.guest(url) as (role, as_guest):
        await application.execute(url, f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
        detail = (await _check(as_guest, "migrations")).detail
        assert "user_licenses has no UNIQUE (user_id, specialization_type)" in detail
        assert f"The role {role} does not own the table" in detail
        assert "ALTER TABLE public.user_licenses ADD UNIQUE (user_id, specialization_type)" in detail
        assert f"GRANT CREATE ON DATABASE {url.rpartition('/')[2]} TO {role}" in detail
        sentence = await application.refused(as_guest)
        assert "The database user may not" in sentence
        assert "permission denied for database" in sentence
        assert "CREATE SCHEMA levelsync" in sentence


@pytest.mark.parametrize(
    ("name", "dropped"),
    [
        ("license_unique", "ALTER TABLE user_licenses DROP CONSTRAINT uq_user_licenses_user_specialization"),
        (
            "duplicate_progress",
            "ALTER TABLE specialization_progress DROP CONSTRAINT uq_specialization_progress_user_spec",
        ),
    ],
)
async def test_the_advice_of_doctor_repairs_the_constraint(database_url: str, name: str, dropped: str) -> None:
    """`levelsync migrate` does nothing at head, so the check gives the statement."""
    await application.execute(database_url, dropped)
    found = await _check(database_url, name)
    assert not found.passed
    await application.execute(database_url, _statement(found.advice))
    assert (await _check(database_url, name)).passed


async def test_serve_names_a_column_that_is_gone_and_waits(database_url: str, settings: Settings) -> None:
    await application.execute(database_url, "ALTER TABLE license_progressions RENAME COLUMN to_level TO gone")
    health, engine = Health(), make_engine(settings)
    waiting = asyncio.create_task(wait_until_ready(engine, settings, health))

    async def named() -> bool:
        problems = str(health.by_component())
        assert "lacks the column public.license_progressions.to_level: levelsync writes the history" in problems
        return True

    await eventually(named)
    await application.execute(database_url, "ALTER TABLE license_progressions RENAME COLUMN gone TO to_level")
    await asyncio.wait_for(waiting, 20)
    await engine.dispose()


async def test_half_an_application_is_reported_with_what_to_correct(url: str) -> None:
    await application.execute(url, "CREATE TABLE user_licenses (id int)")
    sentence = await application.refused(url)
    assert "finds no table users, to which every level belongs, but public.user_licenses exists" in sentence
    assert "Correct LEVELSYNC_DATABASE_URL or the search_path" in sentence
    assert await application.value(url, "SELECT to_regclass('specializations')") is None
    assert "but public.user_licenses exists" in (await _check(url, "migrations")).detail
