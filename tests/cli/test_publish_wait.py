"""`levelsync publish --wait` reports what became of exactly this record."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from events import ProgressLeveledUp
from service.cli.publish_wait import Sent, Stretch
from service.settings import Settings
from tests.support.process import LevelsyncProcess, Result, environment, levelsync

ONE = ("publish", "leveled-up", "--specialization", "PLAYER", "--to-level")


async def run(*arguments: str, env: Mapping[str, str], stdin: str | None = None) -> Result:
    return await asyncio.to_thread(levelsync, *arguments, env=env, stdin=stdin)


@pytest.mark.usefixtures("topics")
async def test_wait_says_what_became_of_the_record(
    settings: Settings, levelsync_process: Callable[..., LevelsyncProcess], tmp_path: Path
) -> None:
    env = environment(settings)
    service = levelsync_process(arguments=("serve", "--roles", "apply"))
    await service.start()
    event = (*ONE, "7", "--user", "42", "--id", "seven", "--source", "/here", "--wait")
    first = await run(*event, "--json", env=env)
    assert first.returncode == 0, first.stderr
    history = json.loads(first.stdout)["history"]
    assert (history["to_level"], history["reason"]) == (7, "ProgressLeveledUp /here seven")
    again = await run(*event, env=env)
    assert (again.returncode, again.stdout.splitlines()[-1]) == (0, "read; the level is 7")
    bad = await run(*ONE, "5", "--user", "4242", "--wait", env=env)
    assert (bad.returncode, "unknown_user" in bad.stdout.splitlines()[-1]) == (1, True)
    file = tmp_path / "events.jsonl"
    events = [ProgressLeveledUp(user_id=user, specialization="COACH", to_level=5) for user in (1, 4243, 2)]
    file.write_text("\n".join(one.to_structured() for one in events))
    several = await run("publish", "--file", str(file), "--wait", env=env)
    assert (several.returncode, several.stdout) == (1, "3 events sent and read; 1 dead letter: unknown_user 1\n")
    assert await service.terminate() == 0
    late = await run(*ONE, "8", "--user", "42", "--wait", "--timeout", "1s", env=env)
    assert (late.returncode, late.stdout) == (3, "")
    assert re.search(r"No applier has read progress\.leveled-up partition \d offset \d+ within 1 s", late.stderr)


@pytest.mark.usefixtures("topics")
async def test_what_will_be_a_dead_letter_is_a_warning(settings: Settings) -> None:
    """It is published anyway. An unreachable database causes neither a warning nor a wait."""
    env = environment(settings)
    chef = ("--user", "4242", "--specialization", "CHEF", "--to-level", "5")
    warned = await run("publish", "leveled-up", *chef, env=env)
    assert warned.returncode == 0
    assert "there is no specialization CHEF; there are COACH, INTERNSHIP, PLAYER" in warned.stderr
    assert "there is no user 4242" in warned.stderr
    high = await run(*ONE, "99", "--user", "42", env=env)
    assert "PLAYER has the levels 1 to 8, not 99" in high.stderr
    nowhere = env | {"LEVELSYNC_DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    silent = await run(*ONE, "99", "--user", "42", env=nowhere)
    assert (silent.returncode, silent.stderr) == (0, "")
    asked = await run(*ONE, "99", "--user", "42", "--wait", env=nowhere)
    assert (asked.returncode, asked.stdout) == (3, "")


def place(offset: int, partition: int = 0) -> Any:
    """Return Kafka's answer for a delivered record."""
    return SimpleNamespace(topic="t", partition=partition, offset=offset, timestamp=1000 + offset)


@pytest.mark.parametrize(
    ("row", "is_read"),
    [
        ({}, True),
        *((row, False) for row in ({"next_offset": 7}, {"cluster_id": "elsewhere"}, {"partition": 1})),
        *(({"topic_id": topic_id}, False) for topic_id in ("recreated", "")),
    ],
)
def test_only_the_position_of_this_topic_says_that_a_record_is_read(row: dict[str, Any], is_read: bool) -> None:
    """A higher offset may belong to a deleted topic or to another cluster."""
    sent = Sent("here", {"t": "mine"})
    sent.add([place(6), place(7)])
    said = {"topic": "t", "partition": 0, "next_offset": 8, "topic_id": "mine", "cluster_id": "here"} | row
    assert sent.is_read([SimpleNamespace(**said)]) is is_read


def test_records_of_others_in_between_are_told_apart() -> None:
    stretch = Stretch()
    for offset in (3, 4, 7):
        stretch.add(offset, 1000 + offset)
    assert (stretch.ranges, stretch.earliest, stretch.latest) == ([(3, 4), (7, 7)], 1003, 1007)
    assert [offset for offset in range(9) if stretch.has(offset)] == [3, 4, 7]


@pytest.mark.parametrize(
    ("before", "after"), [(["--wait"], []), ([], ["--timeout", "9s"]), ([], ["--wait", "--timeout", "soon"])]
)
def test_options_that_would_do_nothing_are_wrong_use(before: list[str], after: list[str]) -> None:
    assert levelsync("publish", *before, *ONE[1:], "5", "--user", "1", *after).returncode == 2
