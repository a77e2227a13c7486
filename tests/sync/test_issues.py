"""`find_desync_issues`: the pairs that differ now (law 8)."""

from __future__ import annotations

from contextlib import aclosing

import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from service.sync import DesyncIssue, UnknownSpecialization
from service.sync import ProgressLicenseSyncService as Service
from tests.support.tables import execute, fill

LEVELS = {"progress_level", "license_level", "difference"}
KEYS = {"user_id", "user_email", "specialization", "recommended_action", "issue_type"} | LEVELS


async def issues(engine: AsyncEngine, specialization: str | None = None) -> list[DesyncIssue]:
    return [issue async for issue in Service(engine).find_desync_issues(specialization)]


async def test_each_kind_is_found_with_what_to_do(engine: AsyncEngine) -> None:
    """The kinds of law 8: the seed's three, and those that no direction can repair."""
    players = {1: 5, 2: 2, 5: 9, 6: None, 8: 4, 9: 2, 10: 2}
    progress = {(user, "PLAYER"): level for user, level in players.items()} | {(3, "COACH"): 3}
    licenses = {(user, "PLAYER"): level for user, level in {1: 3, 2: 4, 6: 1, 9: 2, 10: 2}.items()}
    others = {(4, "COACH"): 3, (7, "WIZARD"): 1, (8, "player"): 4, (9, "player"): 1}
    await fill(engine, progress, licenses | others)
    found = [issue.as_dict() for issue in await issues(engine)]
    assert all(set(issue) == KEYS for issue in found)
    assert [(i["user_id"], i["specialization"], i["issue_type"], i["recommended_action"]) for i in found] == [
        (1, "PLAYER", "mismatched", "sync_progress_to_license"),
        (2, "PLAYER", "mismatched", "sync_license_to_progress"),
        (3, "COACH", "missing_license", "create_license_from_progress"),
        (4, "COACH", "missing_progress", "create_progress_from_license"),
        (5, "PLAYER", "out_of_range", "decide_level"),
        (6, "PLAYER", "null_level", "decide_level"),
        (7, "WIZARD", "unknown_specialization", "remove_by_hand"),
        (8, "player", "wrong_case", "decide_level"),
        (9, "player", "duplicate", "remove_by_hand"),
    ]
    levels = [(i["progress_level"], i["license_level"], i["difference"]) for i in found[:4]]
    assert levels == [(5, 3, 2), (2, 4, 2), (3, None, None), (None, 3, None)]
    assert found[7]["progress_level"] == 4
    assert found[0]["user_email"].endswith("@example.org")
    assert [i.user_id for i in await issues(engine, "coach")] == [3, 4]
    with pytest.raises(UnknownSpecialization):
        await issues(engine, "WIZARD")


async def test_what_differs_is_streamed(engine: AsyncEngine) -> None:
    """PostgreSQL does not send the rest to a reader that stops early."""
    await fill(engine)
    await execute(
        engine,
        """INSERT INTO users (id, name, email)
           SELECT n, 'U', 'many' || n || '@example.org' FROM generate_series(1000, 3999) n""",
        """INSERT INTO specialization_progress (student_id, specialization_id, current_level)
           SELECT n, 'PLAYER', 2 FROM generate_series(1000, 3999) n""",
    )
    async with aclosing(Service(engine).find_desync_issues()) as found:
        first = await anext(found)
        async with engine.connect() as conn:
            cursors = "SELECT state FROM pg_stat_activity WHERE query LIKE '%issue_type%' AND pid <> pg_backend_pid()"
            assert (await conn.execute(text(cursors))).scalar_one() == "idle in transaction"
    assert first.user_id == 1000
    assert len(await issues(engine)) == 3000
