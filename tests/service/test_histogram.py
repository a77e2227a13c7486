"""Our histogram says what prometheus_client's says."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from service.telemetry.metrics import BatchHistogram

BUCKETS = (0.125, 0.5, 1, 43200)  # whose sums are exact in any order
_SECONDS = st.lists(st.integers(0, 50_000).map(lambda number: number / 8) | st.sampled_from(BUCKETS), max_size=50)


@given(st.lists(_SECONDS, max_size=4))
def test_batches_count_as_their_values_one_by_one(batches: list[list[float]]) -> None:
    """The same text for Prometheus: buckets, bounds included, count and sum."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    batch = BatchHistogram("delay_seconds", "Delay", label="type", values=["a"], buckets=BUCKETS, registry=ours)
    single = Histogram("delay_seconds", "Delay", ["type"], buckets=BUCKETS, registry=theirs).labels("a")
    for observed in batches:
        batch.observe_all("a", observed)
        for value in observed:
            single.observe(value)
    lines = [line for line in generate_latest(theirs).splitlines() if b"_created" not in line]
    assert generate_latest(ours).splitlines() == lines
