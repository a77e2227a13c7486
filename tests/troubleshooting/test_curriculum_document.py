"""The statements of docs/curriculum.md do what the document says."""

from __future__ import annotations

import re

from service.checks.curriculum import levels_match_rows, max_level_sync
from tests.support import application
from tests.support.repository import ROOT

TEXT = (ROOT / "docs" / "curriculum.md").read_text(encoding="utf-8")
ADD_LEVEL, ABOVE, ADD_SPECIALIZATION = re.findall(r"^```sql\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


async def test_a_level_is_added_and_only_the_fallback_is_behind(database_url: str) -> None:
    await application.execute(database_url, ADD_LEVEL)
    assert (await application.asked(database_url, levels_match_rows)).passed
    found = await application.asked(database_url, max_level_sync)
    assert (found.passed, found.detail) == (False, "INTERNSHIP is 4 in the DB and 3 in the Helper fallback")


async def test_pairs_above_a_new_maximum_are_found_on_either_side(database_url: str) -> None:
    await application.execute(
        database_url,
        ADD_LEVEL,
        "UPDATE specialization_progress SET current_level = 4"
        " WHERE student_id = 4 AND specialization_id = 'INTERNSHIP'",
        "UPDATE user_licenses SET current_level = 4 WHERE user_id = 8 AND specialization_type = 'INTERNSHIP'",
    )
    assert sorted(await application.rows(database_url, ABOVE)) == [(4, 4), (8, 4)]


async def test_a_specialization_is_added_with_its_level_rows(database_url: str) -> None:
    await application.execute(database_url, ADD_SPECIALIZATION)
    found = await application.asked(database_url, levels_match_rows)
    assert (found.passed, "REFEREE" in found.detail) == (True, True)
    assert (await application.asked(database_url, max_level_sync)).passed
