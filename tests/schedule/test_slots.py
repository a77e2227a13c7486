"""Slots of time: pure arithmetic that every process does alike."""

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from service.process.schedule import run_id, seconds_to_next, slot_at

TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - the strategy gives it a zone
LENGTHS = st.timedeltas(timedelta(milliseconds=1), timedelta(days=30))


@given(TIMES, LENGTHS)
def test_a_time_is_in_exactly_one_slot(now: datetime, every: timedelta) -> None:
    """It began then or before, and has not ended; the next begins when this one ends."""
    slot = slot_at(now, every)
    assert slot <= now < slot + every
    assert slot_at(slot, every) == slot
    assert slot_at(slot + every, every) == slot + every
    assert now + timedelta(seconds=seconds_to_next(now, every)) == slot + every


def test_slots_of_six_hours_begin_at_round_hours() -> None:
    """Counted in UTC, whatever zone the time is given in."""
    six = timedelta(hours=6)
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert slot_at(noon + timedelta(hours=5, minutes=59), six) == noon
    assert slot_at(noon - timedelta(microseconds=1), six) == noon - six
    assert slot_at(datetime(2026, 3, 1, 14, tzinfo=timezone(timedelta(hours=2))), six) == noon


@given(TIMES, LENGTHS, st.floats(0, 0.999))
def test_any_two_processes_name_a_slot_s_run_alike(now: datetime, every: timedelta, part: float) -> None:
    """At any two moments of it; the next slot's run is another one."""
    slot = slot_at(now, every)
    assert run_id(slot_at(slot + every * part, every)) == run_id(slot)
    assert run_id(slot + every) != run_id(slot)


def test_lengths_that_share_a_beginning_share_its_run() -> None:
    """While a new length is rolled out, noon is not asked for twice."""
    now = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
    assert run_id(slot_at(now, timedelta(hours=6))) == run_id(slot_at(now, timedelta(hours=1)))
