"""When a consumer counts as stalled."""

import pytest
from aiokafka import TopicPartition

from service.process.watch import Watchdog

TP = TopicPartition("progress.leveled-up", 0)


@pytest.mark.parametrize(
    "looks",
    [
        pytest.param([(0, 10, 5, False), (59, 20, 5, False), (60, 20, 5, True)], id="which stands still for the bound"),
        pytest.param([(0, 10, 5, False), (50, 10, 6, False), (100, 10, 6, False)], id="unless it has moved"),
        pytest.param([(0, 5, 5, False), (1000, 5, 5, False)], id="unless there is nothing to do"),
        pytest.param([(0, 10, 5, False), (50, 10, None, False), (100, 10, 5, False)], id="unless it retries"),
        pytest.param([(0, 5, 5, False), (3600, 6, 5, False)], id="counted from the lag, not from the last move"),
    ],
)
def test_a_consumer_is_stalled(looks: list[tuple[float, int, int | None, bool]]) -> None:
    """Each look: the time, the log's end, the position (None while the consumer retries), and whether it is stalled."""
    watchdog = Watchdog(stall_seconds=60)
    for now, end, at, stalled in looks:
        assert watchdog.stalled({TP: end}, {} if at is None else {TP: at}, now=now) == ({TP: 5} if stalled else {})


def test_the_clock_starts_anew_after_an_outage() -> None:
    watchdog = Watchdog(stall_seconds=60)
    watchdog.stalled({TP: 6}, {TP: 5}, now=0)
    watchdog.forget()
    assert watchdog.stalled({TP: 6}, {TP: 5}, now=600) == {}
