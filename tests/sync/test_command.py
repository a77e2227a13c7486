"""`levelsync sync`: one pair, all of a user's pairs, or a decided level, with its exit codes."""

from __future__ import annotations

import json

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine

from service.settings import Settings
from tests.support.process import assert_refused, environment, levelsync
from tests.support.tables import PLAYER, fill, licenses, progress, read


@pytest.fixture
async def env(engine: AsyncEngine, settings: Settings) -> dict[str, str]:
    """The environment of a command that finds one pair apart, and one that no direction can repair."""
    await fill(engine, progress={PLAYER: 3, (2, "COACH"): 9}, licenses={PLAYER: 5, (2, "COACH"): 2})
    return environment(settings)


async def test_a_pair_is_synced_and_then_in_sync(engine: AsyncEngine, env: dict[str, str]) -> None:
    first = levelsync("sync", "1", "--specialization", "player", "--direction", "highest", "--json", env=env)
    assert (first.returncode, json.loads(first.stdout)["action"]) == (0, "updated")
    assert await progress(engine) == {PLAYER: 5, (2, "COACH"): 9}
    second = levelsync("sync", "1", "--all", env=env)
    assert second.returncode == 0
    assert "User 1, PLAYER: Already in sync" in second.stdout


async def test_a_pair_that_needs_a_decision_is_exit_1_until_decided(engine: AsyncEngine, env: dict[str, str]) -> None:
    failed = levelsync("sync", "2", "--all", "--json", env=env)
    assert (failed.returncode, json.loads(failed.stdout)["success"]) == (1, False)
    decided = levelsync("sync", "2", "--specialization", "COACH", "--level", "4", env=env)
    assert (decided.returncode, decided.stdout) == (0, "User 2, COACH: progress: 9 -> 4; license: 2 -> 4\n")
    assert (await licenses(engine))[2, "COACH"] == 4
    query = "SELECT role, action, arguments, detail FROM levelsync.admin_actions WHERE outcome = 'done'"
    arguments = {"user_id": 2, "specialization": "COACH", "level": 4}
    row = ("shell", "decide_level", arguments, "progress: 9 -> 4; license: 2 -> 4")
    assert row in [tuple(found) for found in await read(engine, query)]


WRONG_USE = {
    "1": "either --specialization or --all",
    "1 --all --specialization PLAYER": "either --specialization or --all",
    "1 --all --level 2": "--level decides both rows of one pair",
    "1 --all --direction sideways": "there is no direction sideways",
    "1 --specialization WIZARD": "there is no specialization 'WIZARD'; there are COACH",
    "1 --specialization PLAYER --level 9": "level 9 is outside 1 to 8",
}


def test_wrong_use_is_a_sentence_and_exit_2(env: dict[str, str]) -> None:
    for arguments, sentence in WRONG_USE.items():
        assert_refused(levelsync("sync", *arguments.split(), env=env), 2, sentence)
