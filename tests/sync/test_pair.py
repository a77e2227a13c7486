"""The decision about one pair, on values alone (laws 2 and 8)."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events import Direction
from service.core.pair import PairAction, PairDecision, Sides, Why, decide_pair

MAXIMUM = 8
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)


def sides(progress: int | str | None, license_: int | str | None) -> Sides:
    """Return two levels. "-" is a missing row, and None is a NULL."""
    levels = [None if isinstance(level, str) else level for level in (progress, license_)]
    return Sides(levels[0], levels[1], progress_exists=progress != "-", license_exists=license_ != "-")


def level_of(decision: PairDecision, before: Sides, side: str) -> int | None:
    if decision.target == side:
        return decision.new
    return before.progress_level if side == "progress" else before.license_level


anything = st.builds(sides, *[st.one_of(st.integers(-1, MAXIMUM + 2), st.none(), st.just("-")) for _ in range(2)])
sound = st.builds(sides, st.integers(1, MAXIMUM), st.integers(1, MAXIMUM))
directions = st.sampled_from(DIRECTIONS)


@given(before=anything, direction=directions)
def test_a_write_ends_the_drift_and_never_leaves_the_range(before: Sides, direction: Direction) -> None:
    """Afterwards both levels are equal, and between 1 and the maximum."""
    decision = decide_pair(before, direction, MAXIMUM)
    if decision.action is PairAction.NONE:
        assert decision.target is None
        assert decision.why is not None
        assert decision.detail
        return
    after = {level_of(decision, before, side) for side in ("progress", "license")}
    assert after == {decision.new}
    assert decision.new in range(1, MAXIMUM + 1)
    assert decision.new in {before.progress_level, before.license_level}
    assert decision.new != decision.old


@given(before=sound)
def test_the_chosen_source_wins_even_when_it_is_lower(before: Sides) -> None:
    progress, license_ = before.progress_level, before.license_level
    expected = {
        "progress_to_license": progress,
        "license_to_progress": license_,
        "highest": max(progress or 0, license_ or 0),
    }
    for direction in DIRECTIONS:
        decision = decide_pair(before, direction, MAXIMUM)
        for side in ("progress", "license"):
            assert level_of(decision, before, side) == expected[direction]
        assert (decision.why is Why.IN_SYNC) == (progress == license_)


@given(before=anything, direction=directions)
def test_only_a_write_below_the_old_level_lowers(before: Sides, direction: Direction) -> None:
    """A heal that lowers needs a fence (law 2), and `highest` never lowers."""
    decision = decide_pair(before, direction, MAXIMUM)
    assert decision.lowers == (decision.old is not None and decision.new is not None and decision.new < decision.old)
    assert decision.fences == decision.lowers
    assert not (decision.lowers and direction == "highest")


@given(level=st.integers(1, MAXIMUM), direction=directions)
def test_an_orphan_gets_its_missing_row_whatever_the_direction(level: int, direction: Direction) -> None:
    license_ = decide_pair(sides(level, "-"), direction, MAXIMUM)
    progress = decide_pair(sides("-", level), direction, MAXIMUM)
    assert (license_.action, license_.target, license_.new) == (PairAction.CREATED, "license", level)
    assert (progress.action, progress.target, progress.new) == (PairAction.CREATED, "progress", level)


@given(before=anything, direction=directions)
def test_an_invalid_level_needs_a_decision(before: Sides, direction: Direction) -> None:
    """NULL, or outside 1 to the maximum (law 8)."""
    decision = decide_pair(before, direction, MAXIMUM)
    existing = [before.level(side) for side in ("progress", "license") if before.exists(side)]
    undecidable = any(level is None or not 1 <= level <= MAXIMUM for level in existing)
    assert (decision.why is Why.NEEDS_DECISION) == undecidable
    assert (decision.why is Why.NO_SOURCE) == (not existing)


@pytest.mark.parametrize("before", [sides(9, 4), sides(4, 9), sides(9, "-"), sides("-", 9)])
def test_the_words_name_the_level_and_what_it_may_be(before: Sides) -> None:
    detail = decide_pair(before, "progress_to_license", MAXIMUM).detail
    assert "level 9 is outside 1 to 8" in detail
