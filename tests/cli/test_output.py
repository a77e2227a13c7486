"""What commands print of somebody else's bytes never steers the terminal."""

from __future__ import annotations

import json

import pytest

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
    output.print_csv(("a", "b", "c"), [('=1+1,"x"', "\uff1d1+1", -1), (f"@{HOSTILE}", "a\nb", None)])
    expected = ["a,b,c", '"\'=1+1,""x""",\'\uff1d1+1,-1', f"'@{SHOWN},a\\nb,"]
    assert capsys.readouterr().out.splitlines() == expected
