"""Small commands, and what all commands print."""

from __future__ import annotations

import json
import re
from pathlib import Path

import asyncpg
import jwt
import pytest
from rich.console import Console

from events import MODELS
from service.cli import output
from service.cli.reconcile import next_steps
from service.core.names import counted
from service.reconcile.values import RunReport
from tests.support.process import assert_refused, levelsync
from tests.support.runs import NO_RUN, ended


def test_every_event_has_its_schema_and_all_are_in_one_asyncapi_document(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "schemas"
    run = levelsync("schema", "--out", str(folder))
    assert run.returncode == 0, run.stderr
    written = sorted(folder.iterdir())
    assert sorted(map(str, written)) == sorted(run.stdout.split())
    names = {f"{model.TYPE}.schema.json" for model in MODELS} | {"asyncapi.json", "openapi.json"}
    assert {path.name for path in written} == names
    documents = {path.name: json.loads(path.read_text()) for path in written}
    assert documents["asyncapi.json"]["asyncapi"].startswith("3.")
    assert documents["openapi.json"]["openapi"].startswith("3.1")


SECRET = "a-secret-of-at-least-thirty-two-bytes"  # noqa: S105 - of this test only


def test_a_token_carries_role_subject_and_an_end() -> None:
    options = ("--role", "instructor", "--subject", "7", "--ttl", "90s")
    run = levelsync("token", *options, env={"LEVELSYNC_JWT_SECRET": SECRET})
    claims = jwt.decode(run.stdout.strip(), SECRET, algorithms=["HS256"])
    assert claims["exp"] - claims["iat"] == 90
    assert claims["nbf"] == claims["iat"]
    assert (claims["sub"], claims["roles"], claims["type"]) == ("7", ["instructor"], "access")
    assert not {"iss", "aud"} & claims.keys()


def test_a_token_fits_the_configured_issuer_audience_and_claim() -> None:
    settings = {"SECRET": SECRET, "ISSUER": "https://me", "AUDIENCE": "them", "ROLES_CLAIM": "realm.roles"}
    run = levelsync("token", "--role", "admin", env={f"LEVELSYNC_JWT_{name}": one for name, one in settings.items()})
    claims = jwt.decode(run.stdout.strip(), SECRET, algorithms=["HS256"], issuer="https://me", audience="them")
    assert claims["realm"] == {"roles": ["admin"]}


def test_without_a_secret_the_variable_is_named() -> None:
    run = levelsync("token", "--role", "admin")
    assert_refused(run, 2, "LEVELSYNC_JWT_SECRET")


def test_a_revision_can_be_named(empty_database_url: str) -> None:
    env = {"LEVELSYNC_DATABASE_URL": empty_database_url}
    run = levelsync("migrate", "--revision", "fix_internship_levels", env=env)
    assert run.returncode == 0
    assert "levelsync_schema" not in run.stderr


async def test_a_migration_that_stops_is_exit_1_with_its_sentence(empty_database_url: str) -> None:
    conn = await asyncpg.connect(empty_database_url)
    await conn.execute("CREATE TABLE users (id int PRIMARY KEY)")
    await conn.close()
    run = levelsync("migrate", env={"LEVELSYNC_DATABASE_URL": empty_database_url})
    assert_refused(run, 1, "specializations")


HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\x9b31m\rstart\u202eback\ud800"
SHOWN = r"\u001b]0;owned\u0007\u001b[2Jred\u009b31m\u000dstart\u202eback\ud800"


def test_control_characters_are_escaped(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_line(HOSTILE)
    output.print_table("Issues", ("email",), [(HOSTILE,), ("a\nb",)])
    output.print_note(HOSTILE)
    output.print_error(HOSTILE)
    printed = capsys.readouterr()
    assert printed.out.count(SHOWN) == 2
    assert printed.err == f"{SHOWN}\nlevelsync: {SHOWN}\n"
    assert r"a\nb" in printed.out
    assert not set(printed.out + printed.err) & set("\x1b\x07\x9b\r\u202e\ud800")
    output.print_json({"x": HOSTILE})
    document = capsys.readouterr().out
    assert "\x1b" not in document
    assert json.loads(document) == {"x": HOSTILE}


RUN = "3f301f46-108e-4aec-ac7d-bb07d4badd90"


@pytest.mark.parametrize(
    ("columns", "shown", "left_out"),
    [
        (120, ["run", "requested", "status", "detail"], ""),
        (70, ["run", "status", "detail"], "requested"),
        (50, ["run", "status"], "requested, detail"),
    ],
)
def test_a_narrow_terminal_drops_columns_and_breaks_no_word(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], columns: int, shown: list[str], left_out: str
) -> None:
    """stderr names the columns that are left out. A long text is wrapped between words."""
    monkeypatch.setattr(
        output, "stdout_console", lambda: Console(width=columns, force_terminal=True, color_system=None)
    )
    row = (RUN, "2026-11-25T12:00:00", "completed", "another transaction kept its rows locked for too long")
    output.print_table("Runs", ("run", "requested", "status", "detail"), [row], spare=("requested", "detail"))
    printed = capsys.readouterr()
    assert RUN in printed.out
    assert re.search(r"^ *run .*", printed.out, re.MULTILINE)[0].split() == shown  # type: ignore[index]
    assert max(map(len, printed.out.splitlines())) <= columns
    assert printed.err == (f"Not shown, because the terminal is too narrow: {left_out}\n" if left_out else "")


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_table("Letters", ("id", "detail"), [(1, "word " * 200)])
    assert "word " * 199 in capsys.readouterr().out


def test_csv_is_printed_row_by_row_without_a_formula_or_a_line_break(capsys: pytest.CaptureFixture[str]) -> None:
    """Characters of full width count too. The header is printed with the first row, or at the end of an empty sheet."""
    sheet = output.Csv(("a", "b"), lambda item: item)
    assert capsys.readouterr().out == ""
    sheet.add((1, "=1+1"))
    assert capsys.readouterr().out == "a,b\n1,'=1+1\n"
    for text in ("+1", "-1", "@A1", "\uff1d1", "\uff1d1+1"):
        sheet.add((-1, text))
        assert capsys.readouterr().out == f"-1,'{text}\n"
    for item in [('=1+1,"x"', None), (f"@{HOSTILE}", "a\nb")]:
        sheet.add(item)
    assert capsys.readouterr().out.splitlines() == ['"\'=1+1,""x""",', f"'@{SHOWN},a\\nb"]
    sheet.end()
    output.Csv(("a", "b")).end()
    assert capsys.readouterr().out == "a,b\n"


@pytest.mark.parametrize(("number", "words"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (1200, "1,200 pairs")])
def test_a_count_has_the_form_of_its_noun(number: int, words: str) -> None:
    assert counted(number, "pair") == words


ISSUES = f"To see the pairs: levelsync runs {NO_RUN} --issues"
HEAL = "To heal them: levelsync reconcile --direction highest"
DECIDE = "To decide a pair: levelsync sync USER --specialization X --level N"
CONTINUES = f"The run continues: levelsync runs {NO_RUN} shows its progress."


@pytest.mark.parametrize(
    ("report", "said"),
    [
        (ended({}), []),
        (ended({"mismatched": 1}), [ISSUES, f"{HEAL} --execute"]),
        (
            ended({"missing_license": 1}, specialization="PLAYER", user_id=5),
            [ISSUES, f"{HEAL} --specialization PLAYER --user 5 --execute"],
        ),
        (ended({"mismatched": 1}, dry_run=False), [ISSUES]),
        (ended({"failed": 1}, dry_run=False), [ISSUES]),
        (ended({"needs_decision": 1}), [ISSUES, DECIDE]),
        (ended({}, finished_at=None, status="running"), [CONTINUES]),
    ],
)
def test_a_report_names_the_next_command(report: RunReport, said: list[str]) -> None:
    assert next_steps(report) == said
