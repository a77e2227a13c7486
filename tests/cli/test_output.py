"""What commands print of somebody else's bytes never steers the terminal."""

from __future__ import annotations

import json
import re

import pytest
from rich.console import Console

from service.cli import output

HOSTILE = "\x1b]0;owned\x07\x1b[2Jred\x9b31m\rstart\u202eback\ud800"
SHOWN = r"\u001b]0;owned\u0007\u001b[2Jred\u009b31m\u000dstart\u202eback\ud800"


def test_a_terminal_is_shown_what_it_would_obey(capsys: pytest.CaptureFixture[str]) -> None:
    """On both streams, in lines and in tables; a line's end in a cell makes no further row."""
    output.say(HOSTILE)
    output.print_table("Issues", ("email",), [(HOSTILE,), ("a\nb",)])
    output.remark(HOSTILE)
    output.complain(HOSTILE)
    printed = capsys.readouterr()
    assert printed.out.count(SHOWN) == 2
    assert printed.err == f"{SHOWN}\nlevelsync: {SHOWN}\n"
    assert r"a\nb" in printed.out
    assert not set(printed.out + printed.err) & set("\x1b\x07\x9b\r\u202e\ud800")


def test_json_stays_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Escaped as JSON escapes, so a program reads the very text."""
    output.print_json({"x": HOSTILE})
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert json.loads(printed) == {"x": HOSTILE}


def test_a_cell_of_csv_is_one_line_and_no_formula(capsys: pytest.CaptureFixture[str]) -> None:
    """Of half or full width; numbers stay numbers."""
    sheet = output.Csv(("a", "b", "c"), lambda item: item)
    for row in [('=1+1,"x"', "\uff1d1+1", -1), (f"@{HOSTILE}", "a\nb", None)]:
        sheet.add(row)
    expected = ["a,b,c", '"\'=1+1,""x""",\'\uff1d1+1,-1', f"'@{SHOWN},a\\nb,"]
    assert capsys.readouterr().out.splitlines() == expected


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
    """What is left out is said beside the answer; a long text is folded between its words."""
    monkeypatch.setattr(output, "answers", lambda: Console(width=columns, force_terminal=True, color_system=None))
    row = (RUN, "2026-11-25T12:00:00", "completed", "somebody else kept its rows locked for too long")
    output.print_table("Runs", ("run", "requested", "status", "detail"), [row], spare=("requested", "detail"))
    printed = capsys.readouterr()
    assert RUN in printed.out
    assert re.search(r"^ *run .*", printed.out, re.MULTILINE)[0].split() == shown  # type: ignore[index]
    assert max(map(len, printed.out.splitlines())) <= columns
    assert printed.err == (f"Left out on this narrow terminal: {left_out}\n" if left_out else "")


def test_a_row_in_a_pipe_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever its length, so that grep finds it whole."""
    output.print_table("Letters", ("id", "detail"), [(1, "word " * 200)])
    assert "word " * 199 in capsys.readouterr().out


def test_csv_is_printed_row_by_row_and_calculates_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """The heading comes with the first row, or at the end of an empty sheet."""
    sheet = output.Csv(("a", "b"), lambda item: item)
    assert capsys.readouterr().out == ""
    sheet.add((1, "=1+1"))
    assert capsys.readouterr().out == "a,b\n1,'=1+1\n"
    for text in ("+1", "-1", "@A1", "\uff1d1"):
        sheet.add((-1, text))
        assert capsys.readouterr().out == f"-1,'{text}\n"
    sheet.end()
    output.Csv(("a", "b")).end()
    assert capsys.readouterr().out == "a,b\n"


@pytest.mark.parametrize(("number", "words"), [(0, "0 pairs"), (1, "1 pair"), (2, "2 pairs"), (1200, "1,200 pairs")])
def test_a_number_has_its_noun(number: int, words: str) -> None:
    """One pair, and two pairs."""
    assert output.counted(number, "pair") == words
