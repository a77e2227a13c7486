"""The application's own database: `alembic upgrade head` on it, and what levelsync reads from its tables."""

from __future__ import annotations

import json
from typing import Any

import pytest

from service.settings import Settings
from service.store.application import Application, inspect_application, missing_defaults
from tests.support import application


async def test_the_applications_tables_are_not_touched_by_the_base_revision(url: str) -> None:
    await application.make_application(url)
    before = await application.state(url)
    await application.upgrade(url, "spec_level_system")
    assert await application.state(url) == before


async def test_only_the_constraints_are_added(url: str) -> None:
    """The application's own Alembic history stays."""
    await application.make_application(url)
    before = (await application.structure(url)).splitlines()
    await application.upgrade(url)
    after = (await application.structure(url)).splitlines()
    added = [line for line in after if line not in before]
    assert [line for line in before if line not in after] == []
    assert len(added) == 4, added  # two constraints and their indexes
    assert all("uq_specialization_progress_user_spec" in line or "uq_user_licenses" in line for line in added)
    versions = await application.rows(url, "SELECT version_num FROM public.alembic_version")
    assert versions == [("9f3c_of_the_application",)]


async def test_internship_is_fixed_and_the_old_value_is_logged(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    await application.make_application(
        url,
        "INSERT INTO specialization_progress (student_id, specialization_id, current_level)"
        " VALUES (2, 'INTERNSHIP', 5), (3, 'INTERNSHIP', 3)",
        "INSERT INTO user_licenses (user_id, specialization_type, current_level, started_at)"
        " VALUES (2, 'INTERNSHIP', 4, now()), (4, 'INTERNSHIP', 4, now())",
    )
    await application.upgrade(url)
    assert "max_levels of INTERNSHIP was 5, is 3; pairs above it: 2" in capsys.readouterr().err
    levels = "SELECT id, max_levels FROM specializations ORDER BY id"
    assert await application.rows(url, levels) == [("COACH", 8), ("INTERNSHIP", 3), ("PLAYER", 8)]
    assert await application.value(url, "SELECT max(current_level) FROM specialization_progress") == 5


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (
            "ALTER TABLE specializations DROP COLUMN max_levels",
            "the table specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set",
        ),
        ("ALTER TABLE user_licenses DROP COLUMN last_advanced_at", "column public.user_licenses.last_advanced_at"),
        ("DROP TABLE license_progressions", "table public.license_progressions"),
    ],
)
async def test_what_is_missing_is_named_before_any_change(url: str, change: str, named: str) -> None:
    await application.make_application(url, change)
    before = await application.state(url)
    assert named in await application.refused(url)
    assert await application.value(url, "SELECT to_regnamespace('levelsync')") is None
    assert await application.state(url) == before


async def test_a_column_dropped_between_two_releases_stops_the_next_revision(url: str) -> None:
    await application.make_application(url)
    await application.upgrade(url, "spec_level_system")
    await application.execute(url, "ALTER TABLE specializations DROP COLUMN max_levels")
    before = await application.structure(url)
    refusal = await application.refused(url)
    assert "the table specializations has no column max_levels and LEVELSYNC_MAX_LEVELS is not set" in refusal
    assert await application.structure(url) == before
    assert await application.value(url, "SELECT to_regclass('levelsync.removed_rows')") is None


@pytest.mark.parametrize(
    ("change", "said", "left"),
    [
        ("DROP TABLE internship_levels", "no table internship_levels", None),
        ("INSERT INTO internship_levels VALUES (4, 'Four', 1, 1)", "internship_levels has 4 rows, not 3", 4),
    ],
)
async def test_level_rows_other_than_three_are_reported_and_kept(
    url: str, capsys: pytest.CaptureFixture[str], change: str, said: str, left: int | None
) -> None:
    await application.make_application(url, change)
    await application.upgrade(url)
    assert said in capsys.readouterr().err
    there = await application.value(url, "SELECT to_regclass('internship_levels')") is not None
    assert (await application.value(url, "SELECT count(*) FROM internship_levels") if there else None) == left


LICENSE_EXTRA = """
    ALTER TABLE user_licenses
        ADD currency char(3) NOT NULL,
        ADD note text,
        ADD paid_at timestamp NOT NULL DEFAULT now(),
        ADD number int NOT NULL GENERATED ALWAYS AS IDENTITY,
        ADD twice int NOT NULL GENERATED ALWAYS AS (user_id * 2) STORED
"""
EXTRA = (
    LICENSE_EXTRA,
    "CREATE DOMAIN mood AS text DEFAULT 'fine'",
    "ALTER TABLE specialization_progress ADD season varchar(9) NOT NULL, ADD feeling mood NOT NULL",
    "ALTER TABLE license_progressions ADD signed_by int NOT NULL",
)


async def _application(url: str, *changes: str) -> Application:
    await application.make_application(url, "TRUNCATE user_licenses, specialization_progress CASCADE", *changes)
    return await application.asked(url, inspect_application)


def _settings(**defaults: dict[str, Any]) -> Settings:
    return application.settings("postgresql://x/y").model_copy(update=defaults)


async def test_a_database_of_our_own_needs_no_defaults(database_url: str) -> None:
    found = await application.asked(database_url, inspect_application)
    assert "instructor_notes" in found.licenses.columns
    assert missing_defaults(found, _settings()) == []


async def test_required_columns_are_named_with_the_variable_to_set(url: str) -> None:
    more = "ALTER TABLE user_licenses ADD COLUMN tier text NOT NULL"
    application = await _application(url, *EXTRA, more)
    lacks = "has columns that must have a value and have no default:"
    set_them = "to a JSON object with them:"
    assert missing_defaults(application, _settings(license_defaults={"tier": None, "note": "new"})) == [
        (
            f"user_licenses {lacks} currency (character(3)), tier (text); "
            f'set LEVELSYNC_LICENSE_DEFAULTS {set_them} {{"currency": …, "note": …, "tier": …}}'
        ),
        (
            f"specialization_progress {lacks} season (character varying(9)); "
            f'set LEVELSYNC_PROGRESS_DEFAULTS {set_them} {{"season": …}}'
        ),
        (
            f"license_progressions {lacks} signed_by (integer); "
            "levelsync has no setting for this table. Set defaults in the database"
        ),
    ]


async def test_configured_defaults_satisfy_required_columns_and_unusable_ones_are_named(url: str) -> None:
    application = await _application(url, LICENSE_EXTRA)
    euro = json.loads('{"currency": "EUR"}')
    assert missing_defaults(application, _settings(license_defaults=euro)) == []
    assert missing_defaults(application, _settings(license_defaults={"currency": None}))
    unusable = _settings(license_defaults=euro, progress_defaults={"seasom": 1, "total_xp": 5})
    sentences = missing_defaults(application, unusable)
    assert "specialization_progress.seasom, and there is no such column" in sentences[0]
    assert "specialization_progress.total_xp, which levelsync writes itself" in sentences[1]
