"""The application's tables are read from the database."""

import json
from typing import Any

from service.settings import Settings
from service.store.application import Application, inspect_application, missing_defaults
from tests.support import application

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


async def test_columns_that_must_have_a_value_are_found_with_their_types(url: str) -> None:
    application = await _application(url, *EXTRA)
    assert application.licenses.required_columns == {"currency": "character(3)"}
    assert application.progress.required_columns == {"season": "character varying(9)"}
    assert application.progressions.required_columns == {"signed_by": "integer"}


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


async def test_configured_defaults_satisfy_required_columns(url: str) -> None:
    application = await _application(url, LICENSE_EXTRA)
    assert missing_defaults(application, _settings(license_defaults=json.loads('{"currency": "EUR"}'))) == []
    assert missing_defaults(application, _settings(license_defaults={"currency": None}))


async def test_defaults_that_cannot_be_used_are_named(url: str) -> None:
    application = await _application(url)
    sentences = missing_defaults(application, _settings(progress_defaults={"seasom": 1, "total_xp": 5}))
    assert "specialization_progress.seasom, and there is no such column" in sentences[0]
    assert "specialization_progress.total_xp, which levelsync writes itself" in sentences[1]
