"""When a consumer counts as stalled: the pure rule (aiokafka's consumers can stop without a word)."""

from aiokafka import TopicPartition

from service.process.watch import Watchdog

TP = TopicPartition("progress.leveled-up", 0)


def test_standing_still_with_lag_is_a_stall_only_after_the_bound() -> None:
    """A slow batch is not a stall."""
    watchdog = Watchdog(stall_seconds=60)
    assert watchdog.stalled({TP: 10}, {TP: 5}, now=0) == {}
    assert watchdog.stalled({TP: 20}, {TP: 5}, now=59) == {}
    assert watchdog.stalled({TP: 20}, {TP: 5}, now=60) == {TP: 5}


def test_moving_resets_the_clock() -> None:
    """Any step forward is life."""
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 10}, {TP: 5}, now=0)
    watchdog.stalled({TP: 10}, {TP: 6}, now=50)
    assert watchdog.stalled({TP: 10}, {TP: 6}, now=100) == {}


def test_without_lag_nothing_is_stalled() -> None:
    """Nothing to do is not standing still."""
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 5}, {TP: 5}, now=0)
    assert watchdog.stalled({TP: 5}, {TP: 5}, now=1000) == {}


def test_a_consumer_that_retries_does_not_count() -> None:
    """Its positions are not handed in; the clock begins when it has ended."""
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 10}, {TP: 5}, now=0)
    watchdog.stalled({TP: 10}, {}, now=50)
    assert watchdog.stalled({TP: 10}, {TP: 5}, now=100) == {}


def test_an_idle_hour_before_the_first_record_is_no_stall() -> None:
    """The clock begins with the lag, not with the last move."""
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 5}, {TP: 5}, now=0)
    assert watchdog.stalled({TP: 6}, {TP: 5}, now=3600) == {}


def test_the_clock_starts_anew_after_an_outage() -> None:
    """While Kafka was away nobody could move."""
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 6}, {TP: 5}, now=0)
    watchdog.forget()
    assert watchdog.stalled({TP: 6}, {TP: 5}, now=600) == {}
