"""How the page writes times, bytes and numbers."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta, timezone

import pytest

from service.web.page import render


def test_times_are_in_utc_whatever_they_were_in() -> None:
    """One without a zone is the application's, which keeps UTC."""
    shown = "2026-11-23 01:30:00 UTC"
    assert render.moment(datetime(2026, 11, 23, 1, 30)) == shown  # noqa: DTZ001 - as the application keeps them
    assert render.moment(datetime(2026, 11, 23, 3, 30, tzinfo=timezone(timedelta(hours=2)))) == shown
    assert render.moment("2026-11-23T01:30:00+00:00") == shown
    assert render.moment(None) == "never"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.3, "less than a second ago"),
        (1, "1 second ago"),
        (119, "1 minute ago"),
        (7300, "2 hours ago"),
        (-65, "in 1 minute"),
    ],
)
def test_ages_are_in_their_largest_unit(seconds: float, said: str) -> None:
    """Nobody counts seconds of an hour."""
    assert render.age(datetime.now(UTC) - timedelta(seconds=seconds)) == said


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b'{"b":1,"a":"\xc3\xa9"}', '{\n  "b": 1,\n  "a": "\u00e9"\n}'),
        (b"{broken", "{broken"),
        (b"\xff\xfe<b>", "\\xff\\xfe<b>"),
        (b"[" * 100_000, "[" * 100_000),
        (None, "(none: a tombstone)"),
    ],
)
def test_any_bytes_can_be_shown(raw: bytes | None, shown: str) -> None:
    """JSON indented, everything else as it is."""
    assert render.decoded(raw) == shown


def test_what_is_nested_deeply_is_not_blown_up() -> None:
    """64 KB of JSON indented are 30 MB, and the process does nothing else for as long."""
    raw = b"[" * 400 + b"0," * 30_000 + b"0" + b"]" * 400
    assert render.decoded(raw) == raw.decode()


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.25, "up to 250 ms"),
        (2.5, "up to 2.5 s"),
        (60, "up to 1 minute"),
        (43200, "up to 12 hours"),
        (math.inf, "above 12 hours"),
    ],
)
def test_a_bucket_of_delays_is_shown_by_its_bound(seconds: float, said: str) -> None:
    """A histogram knows no more than that."""
    assert render.bound(seconds) == said
