"""What is said of a pair: pure."""

from __future__ import annotations

import pytest

from service.admin.pairs import Row, UserPair


def row(level: int | None, name: str = "PLAYER") -> Row:
    return Row(name, level, None, None)


@pytest.mark.parametrize(
    ("pair", "state"),
    [
        (UserPair("PLAYER", 8, None, None), "absent"),
        (UserPair("PLAYER", 8, row(3), row(3)), "in_sync"),
        (UserPair("PLAYER", 8, row(3), row(2)), "mismatched"),
        (UserPair("PLAYER", 8, row(3), None), "missing_license"),
        (UserPair("PLAYER", 8, None, row(3)), "missing_progress"),
        (UserPair("PLAYER", 8, row(9), row(9)), "needs_decision"),
        (UserPair("PLAYER", 8, row(None), row(3)), "needs_decision"),
        (UserPair("PLAYER", 8, row(3), row(3, "player")), "wrong_case"),
        (UserPair("PLAYER", 8, row(3), row(3), (row(2, "player"),)), "duplicate"),
        (UserPair("GOALKEEPER", None, None, row(1, "GOALKEEPER")), "unknown_specialization"),
    ],
)
def test_every_kind_of_pair_has_its_name(pair: UserPair, state: str) -> None:
    """The reconciler's own words, so that a page and a report say the same."""
    assert pair.state == state


def test_what_has_no_repair_offers_none() -> None:
    """Whatever the direction: somebody has to decide."""
    for pair in (UserPair("PLAYER", 8, row(9), row(3)), UserPair("GOALKEEPER", None, None, row(1, "GOALKEEPER"))):
        assert {pair.decide(direction).action.value for direction in ("progress_to_license", "highest")} == {"none"}
