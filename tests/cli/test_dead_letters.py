"""`levelsync dead-letters`: counts by reason, pages, and a whole letter."""

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncEngine

from events import Reason
from service.cli.dead_letters import hex_dump
from service.dead_letters import MEANINGS
from service.settings import Settings
from service.store.tables import dead_letters
from tests.support.process import environment, levelsync

TEXT: dict[str, Any] = {"reason": "invalid", "detail": "to_level is missing", "key": b"42", "value": b'{"user_id": 42}'}
BINARY: dict[str, Any] = {"reason": "malformed", "detail": "not UTF-8", "key": None, "value": b"\xff\x00binary"}


def row(offset: int, **columns: Any) -> dict[str, Any]:
    where = {"topic": "progress.leveled-up", "partition": 1, "offset": offset, "record_timestamp": 1_700_000_000_000}
    return where | {"headers": [{"key": "ce_id", "value": "e1"}, {"key": "odd", "base64": "/w=="}]} | columns


@pytest.fixture
async def env(engine: AsyncEngine, settings: Settings) -> dict[str, str]:
    async with engine.begin() as conn:
        for number, content in enumerate((TEXT, TEXT, BINARY)):
            await conn.execute(insert(dead_letters).values(row(number, **content)))
        done = row(9, **TEXT, resolution="replayed", resolved_at=datetime(2026, 1, 1, tzinfo=UTC))
        await conn.execute(insert(dead_letters).values(done))
    return environment(settings)


def test_open_letters_are_counted_by_reason(env: dict[str, str]) -> None:
    """The most frequent reason comes first. Resolved letters do not count."""
    document = json.loads(levelsync("dead-letters", "list", "--json", env=env).stdout)
    assert [(line["reason"], line["count"]) for line in document["reasons"]] == [("invalid", 2), ("malformed", 1)]
    assert document["total"] == 3
    assert all(line["oldest"] <= line["newest"] for line in document["reasons"])


async def test_control_characters_in_a_header_are_escaped(engine: AsyncEngine, settings: Settings) -> None:
    """It cannot forge a line either, and an impossible time does not end the command."""
    forged = {"headers": [{"key": "x\x1b[2J", "value": "y\n  state       resolved"}], "record_timestamp": 10**17}
    async with engine.begin() as conn:
        await conn.execute(insert(dead_letters).values(row(0, **TEXT) | forged))
    printed = levelsync("dead-letters", "show", "1", env=environment(settings)).stdout
    assert r"  header      x\u001b[2J: y\n  state       resolved" in printed.splitlines()
    assert "offset 0, 100000000000000000 ms" in printed


def test_the_letters_of_a_reason_come_in_pages_newest_first(env: dict[str, str]) -> None:
    found, cursor = [], None
    for _ in range(4):  # a limit, should the cursor never end
        page = ["--reason", "invalid", "--limit", "1", *(["--cursor", str(cursor)] if cursor else [])]
        document = json.loads(levelsync("dead-letters", "list", *page, "--json", env=env).stdout)
        found += document["dead_letters"]
        cursor = document["cursor"]
        if cursor is None:
            break
    assert [letter["offset"] for letter in found] == [1, 0]
    assert found[0]["value_bytes"] == len(TEXT["value"])


def test_a_table_is_plain_text_in_a_pipe(env: dict[str, str]) -> None:
    run = levelsync("dead-letters", "list", "--reason", "malformed", env=env)
    assert run.returncode == 0
    assert "\x1b" not in run.stdout
    assert len([line for line in run.stdout.splitlines() if "progress.leveled-up-1@2" in line]) == 1


def test_a_letter_is_shown_whole(env: dict[str, str]) -> None:
    """A binary value is shown as hexadecimal, and a resolved letter can still be shown."""
    text, binary, resolved = (levelsync("dead-letters", "show", number, env=env).stdout for number in "134")
    where = "progress.leveled-up, partition 1, offset 0, 2023-11-14"
    parts = (MEANINGS["invalid"], "to_level is missing", where, "ce_id: e1", '{"user_id": 42}', "open")
    assert [part for part in parts if part not in text] == []
    assert "ff 00 62 69 6e" in binary
    document = json.loads(levelsync("dead-letters", "show", "3", "--json", env=env).stdout)
    assert document["value"] is None
    assert base64.b64decode(document["value_base64"]) == BINARY["value"]
    assert "replayed at 2026-01-01" in resolved


def test_every_reason_has_a_meaning() -> None:
    assert set(MEANINGS) == set(Reason)


def test_a_hex_dump_has_sixteen_bytes_a_line() -> None:
    lines = hex_dump(b"0123456789abcdef\x00\x7f").splitlines()
    assert [line.split()[0] for line in lines] == ["00000000", "00000010"]
    assert lines[0].endswith("0123456789abcdef")
    assert lines[1].endswith("..")


def test_options_filter_letters(env: dict[str, str]) -> None:
    def found(*options: str) -> list[int]:
        document = json.loads(levelsync("dead-letters", "list", *options, "--json", env=env).stdout)
        return [letter["id"] for letter in document["dead_letters"]]

    assert found("--user", "42") == [2, 1]
    assert found("--state", "all") == [4, 3, 2, 1]
    assert found("--state", "resolved", "--reason", "invalid") == [4]
    assert found("--since", "1h", "--topic", "progress.leveled-up") == [3, 2, 1]
    assert found("--until", "2026-01-01T00:00") == []


def test_a_dry_run_says_how_many(env: dict[str, str]) -> None:
    for verb in ("replay", "discard"):
        run = levelsync("dead-letters", verb, "--reason", "invalid", "--dry-run", "--json", env=env)
        assert (run.returncode, json.loads(run.stdout)["selected"]) == (0, 2)
        assert "2 open dead letters" in run.stderr
    assert json.loads(levelsync("dead-letters", "list", "--json", env=env).stdout)["total"] == 3


def test_discarding_several_letters_needs_a_confirmation(env: dict[str, str]) -> None:
    """Without a terminal, `--all` needs --yes even for one letter."""
    refused = levelsync("dead-letters", "discard", "--all", env=env)
    assert (refused.returncode, "--yes" in refused.stderr) == (2, True)
    assert levelsync("dead-letters", "discard", "1", env=env).stdout == "Discarded 1 letter\n"
    assert levelsync("dead-letters", "discard", "2", env=env).stdout == "Discarded 1 letter\n"
    asked = levelsync("dead-letters", "discard", "--all", env=env)
    assert (asked.returncode, "Discard 1 dead letter?" in asked.stderr) == (2, True)
    assert levelsync("dead-letters", "discard", "--all", "--yes", env=env).stdout == "Discarded 1 letter\n"
    assert "discarded at" in levelsync("dead-letters", "show", "1", env=env).stdout
