"""The decision about a batch, on values alone (laws 1 and 2)."""

from datetime import UTC, datetime, timedelta

from events import Reason
from service.apply.decide import Decision, Found, TargetRow, decide
from service.apply.outcomes import LevelEvent, Outcome

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
PAIR = (7, "PLAYER")


def event(index: int, to_level: int, *, minutes: int = 0) -> LevelEvent:
    at = NOON + timedelta(minutes=minutes)
    return LevelEvent(index, 7, "PLAYER", to_level, at, at, f"ProgressLeveledUp test {index}")


def decided(events: list[LevelEvent], level: int | None, fence: datetime | None = None) -> Decision:
    rows = {} if level is None else {PAIR: TargetRow(70, level)}
    return decide(events, Found(rows, {PAIR: fence} if fence else {}, {7}))


def test_three_steps_in_one_batch_are_three_rises() -> None:
    """2→3, 3→4, 4→5 are not one 2→5."""
    decision = decided([event(0, 3), event(1, 4, minutes=1), event(2, 5, minutes=2)], level=2)
    assert [(rise.from_level, rise.to_level) for rise in decision.rises] == [(2, 3), (3, 4), (4, 5)]
    assert decision.changes[PAIR].level == 5
    assert decision.changes[PAIR].advanced_at == NOON + timedelta(minutes=2)


def test_a_created_row_rises_from_zero_and_then_further() -> None:
    """The row's beginning is the first event's time, its last advance the last one's."""
    decision = decided([event(0, 3), event(1, 5, minutes=1)], level=None)
    assert [(rise.from_level, rise.to_level) for rise in decision.rises] == [(0, 3), (3, 5)]
    assert decision.outcomes == {0: Outcome.CREATED, 1: Outcome.APPLIED}
    assert (decision.changes[PAIR].created_at, decision.changes[PAIR].row_id) == (NOON, None)


def test_an_equal_or_lower_level_writes_nothing() -> None:
    """A repeat leaves no row of history."""
    decision = decided([event(0, 5), event(1, 4)], level=5)
    assert decision.outcomes == {0: Outcome.EQUAL, 1: Outcome.AHEAD}
    assert not decision.changes
    assert not decision.rises


def test_an_event_at_the_time_of_the_decision_is_superseded_and_a_later_one_applies() -> None:
    """'At or before' stands; after it, events apply as usual."""
    decision = decided([event(0, 5), event(1, 6, minutes=1)], level=2, fence=NOON)
    assert decision.outcomes == {0: Outcome.SUPERSEDED, 1: Outcome.APPLIED}
    assert [(rise.from_level, rise.to_level) for rise in decision.rises] == [(2, 6)]


def test_a_missing_user_is_a_dead_letter_only_where_a_row_would_be_made() -> None:
    """An existing row proves its user; a missing one has to be looked up."""
    decision = decide([event(0, 3)], Found({}, {}, set()))
    assert [(letter.index, letter.reason) for letter in decision.letters] == [(0, Reason.UNKNOWN_USER)]
    assert not decision.changes
