"""Lists on the command line: CSV, runs by a prefix of their id, the audit log, and a full disk behind stdout."""

from __future__ import annotations

import asyncio
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy.ext.asyncio import AsyncEngine
from typer.testing import CliRunner

from service.cli import app, reconcile
from service.reconcile.runs import lowered_first
from service.reconcile.values import RunReport
from service.settings import Settings
from tests.support.preloaded import Command
from tests.support.process import clean, environment, levelsync
from tests.support.runs import ended
from tests.support.tables import PLAYER, execute, fill

RUNS = ("3f301f46-108e-4aec-ac7d-bb07d4badd90", "3f301f46-2222-4aec-ac7d-bb07d4badd90")
_ADD_RUNS = f"""
    INSERT INTO levelsync.reconcile_runs (id, status, step, direction, dry_run, force, finished_at)
    SELECT id, 'completed', 'done', 'progress_to_license', true, false, now()
      FROM unnest(CAST('{{{",".join(RUNS)}}}' AS uuid[])) id
"""
_COLUMNS = "run_id, user_id, specialization, kind, progress_level, license_level, status, detail"
_ADD_ISSUES = f"""
    INSERT INTO levelsync.drift_issues ({_COLUMNS})
    VALUES ('{RUNS[0]}', 1, 'PLAYER', 'mismatched', 5, 3, 'confirmed', ''),
           ('{RUNS[0]}', 2, 'PLAYER', 'mismatched', 3, 5, 'confirmed', '=1+1')
"""
_MORE_ISSUES = f"""
    INSERT INTO levelsync.drift_issues ({_COLUMNS})
    SELECT '{RUNS[0]}', n, 'COACH', 'mismatched', 5, {{level}}, 'confirmed', '' FROM generate_series(3, {{last}}) AS n
"""
_ADD_ACTIONS = """
    INSERT INTO levelsync.admin_actions (at, subject, role, action, arguments, outcome, client_address, times)
    VALUES ('2026-11-01', 'ada', 'admin', 'sync_user', jsonb_build_object('user_id', 7), 'done', '10.0.0.7', 1),
           ('2026-11-02', '@bob', 'none', 'sign_in', '{}', 'refused', '10.0.0.8', 4),
           ('2026-11-03', 'ada', 'shell', 'discard_letters', '{}', 'done', '', 1)
"""


@pytest.fixture
async def env(engine: AsyncEngine, settings: Settings) -> Mapping[str, str]:
    """Two runs whose ids begin alike, the issues of one, a pair that differs, and three rows of the audit log."""
    await fill(engine, progress={PLAYER: 3}, licenses={PLAYER: 5})
    await execute(engine, _ADD_RUNS, _ADD_ISSUES, _ADD_ACTIONS)
    return environment(settings)


def rows(printed: str) -> list[dict[str, str]]:
    return list(csv.DictReader(printed.splitlines()))


def test_lists_are_printed_as_csv(env: Mapping[str, str]) -> None:
    issues = levelsync("runs", RUNS[0], "--issues", "--csv", env=env)
    found = [(row["user_id"], row["lowered"], row["detail"]) for row in rows(issues.stdout)]
    assert found == [("2", "True", "'=1+1"), ("1", "False", "")]
    drift = levelsync("drift", "--csv", env=env)
    assert drift.returncode == 1
    (row,) = rows(drift.stdout)
    assert (row["user_id"], row["progress_level"], row["license_level"]) == ("1", "3", "5")
    letters = levelsync("dead-letters", "list", "--state", "all", "--csv", env=env)
    assert letters.stdout.startswith("id,reason,detail,topic,partition,offset,")


def test_a_run_is_found_by_the_beginning_of_its_id(env: Mapping[str, str]) -> None:
    found = levelsync("runs", "3F301F46-1", "--json", env=env)
    assert json.loads(found.stdout)["run_id"] == RUNS[0]
    for given, sentence in (
        ("3f301f46", "several runs begin with 3f301f46"),
        ("abcdef", "there is no run abcdef"),
        ("3f301", "neither a run's id nor the first 6 characters of one"),
    ):
        refused = levelsync("runs", given, env=env)
        assert (refused.returncode, sentence in refused.stderr) == (2, True), refused.stderr


def test_the_audit_log_is_listed_and_filtered(env: Mapping[str, str]) -> None:
    everything = json.loads(levelsync("audit", "--json", env=env).stdout)["actions"]
    assert [row["subject"] for row in everything] == ["ada", "@bob", "ada"]
    since = rows(levelsync("audit", "--since", "2026-11-02", "--csv", env=env).stdout)
    assert [(row["subject"], row["times"]) for row in since] == [("ada", "1"), ("'@bob", "4")]
    (ada, _) = reversed(rows(levelsync("audit", "--subject", "ada", "--csv", env=env).stdout))
    assert (ada["client_address"], json.loads(ada["arguments"])) == ("10.0.0.7", {"user_id": 7})
    assert "10.0.0.8" in levelsync("audit", env=env).stdout


@pytest.mark.usefixtures("env")
async def test_issues_come_page_by_page_the_levels_that_fall_first(engine: AsyncEngine) -> None:
    await execute(engine, _MORE_ISSUES.format(level="5 + (n % 2) * 2 - 1", last=8))
    async with engine.begin() as conn:
        found = [(i.user_id, i.lowered) async for i in lowered_first(conn, UUID(RUNS[0]), page=2)]
    assert found == [(2, True), (3, True), (5, True), (7, True), (1, False), (4, False), (6, False), (8, False)]


@pytest.mark.usefixtures("env")
async def test_a_report_shows_its_first_ten_issues(
    engine: AsyncEngine, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    await execute(engine, _MORE_ISSUES.format(level=4, last=20))

    async def ask(*_: Any, **__: Any) -> RunReport:
        return ended({"scanned": 30, "matching": 10, "mismatched": 20, "lowered": 1}, run_id=UUID(RUNS[0]))

    monkeypatch.setattr(reconcile, "ask", ask)
    monkeypatch.setattr("service.cli.context.settings", lambda: settings)
    done = await asyncio.to_thread(CliRunner().invoke, app, ["reconcile"])
    assert done.exit_code == 1, done.output
    shown = [line for line in done.stdout.split("The first 10 issues")[1].splitlines()[2:] if line.strip()]
    assert [line.split()[:2] for line in shown[:2]] == [["2", "PLAYER"], ["1", "PLAYER"]]
    assert [line.split()[:2] for line in shown[2:]] == [[str(user), "COACH"] for user in range(3, 11)]
    assert [" yes " in line for line in shown] == [True] + [False] * 9


COMPLETIONS = {
    "reconcile --direction ": ["highest", "license_to_progress", "progress_to_license"],
    "sync 1 --direction h": ["highest"],
    "dead-letters list --reason un": ["unknown_specialization", "unknown_type", "unknown_user"],
    "dead-letters list --state r": ["replaying", "resolved"],
    "reconcile --specialization P": ["PLAYER"],
    "drift --specialization ": ["COACH", "INTERNSHIP", "PLAYER"],
    "runs ": sorted(RUNS),
    "runs 3f301f46-1": [RUNS[0]],
}


def test_shell_completion_knows_the_values(env: Mapping[str, str]) -> None:
    def completed(typed: str) -> list[str]:
        words = f"levelsync {typed}"
        shell = {"COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
        return sorted(levelsync(env={**env, "_LEVELSYNC_COMPLETE": "complete_bash", **shell}).stdout.split())

    assert {typed: completed(typed) for typed in COMPLETIONS} == COMPLETIONS


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
def test_a_full_disk_behind_stdout_is_a_sentence_and_exit_1(env: Mapping[str, str], tmp_path: Path) -> None:
    """No traceback, and no second message when the command ends and flushes stdout."""
    errors = tmp_path / "errors"
    for arguments in (["audit"], ["runs", "--json"], ["audit", "--csv"], ["--help"]):
        with Path("/dev/full").open("rb+", buffering=0) as full, errors.open("w") as stderr:
            code = Command(["levelsync", *arguments], clean(env), None, (full, full, stderr)).wait(60)
        said = "levelsync: the output cannot be written: No space left on device\n"
        assert (code, errors.read_text()) == (1, said), arguments
