"""All metrics, each declared once with its help text.

Counters begin at 0 with every label value that is known beforehand. `increase()` would not count the first step of a
series that begins at 1, and a dashboard without data looks broken.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import product
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from events import LICENSE_ADVANCED_TYPE, PROGRESS_LEVELED_UP_TYPE
from service.core.names import DIRECTIONS, HEALABLE


class BatchHistogram(Collector):
    """A histogram that counts a whole batch of observations at once; prometheus_client's counts them one by one.

    It has one label. The label's values are known beforehand, and their counts begin at 0.
    """

    def __init__(  # noqa: PLR0913 - a histogram's declaration
        self,
        name: str,
        documentation: str,
        *,
        label: str,
        values: Iterable[str],
        buckets: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        self._name, self._documentation, self._label = name, documentation, label
        self._bounds = (*buckets, math.inf)
        self._names = [str(floatToGoString(bound)) for bound in self._bounds]  # type: ignore[no-untyped-call]  # its own
        self._counts = {value: [0] * len(self._bounds) for value in values}
        self._sums = dict.fromkeys(self._counts, 0.0)
        registry.register(self)

    def observe_all(self, value: str, observed: Iterable[float]) -> None:
        """Count a batch of observations under one value of the label."""
        ordered = sorted(observed)
        counts = self._counts[value]
        for index, bound in enumerate(self._bounds):
            counts[index] += bisect_right(ordered, bound)
        self._sums[value] += math.fsum(ordered)

    def describe(self) -> Iterable[HistogramMetricFamily]:
        """Yield the metric without its counts."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=[self._label])

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """Yield the cumulative count of each bucket, and the sum."""
        (family,) = self.describe()
        for value, counts in self._counts.items():
            family.add_metric([value], list(zip(self._names, counts, strict=True)), self._sums[value])
        yield family


REGISTRY = CollectorRegistry()
TYPES = (PROGRESS_LEVELED_UP_TYPE, LICENSE_ADVANCED_TYPE)
disable_created_metrics()  # type: ignore[no-untyped-call]  # nobody needs a second series for every counter

EVENTS = Counter("levelsync_events", "Events decided, by outcome", ["type", "outcome"], registry=REGISTRY)
LONGEST_DELAY = 43200
"""The largest finite bound of the delay's buckets, in seconds."""
EVENT_DELAY = BatchHistogram(
    "levelsync_event_delay_seconds",
    "Time from an event's occurrence to the commit of its effect",
    label="type",
    values=TYPES,
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, LONGEST_DELAY),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "levelsync_batch_seconds",
    "Time from a batch's poll to its commit in PostgreSQL",
    ["type"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=REGISTRY,
)
BATCH_RECORDS = Histogram(
    "levelsync_batch_records",
    "Records in one batch",
    ["type"],
    buckets=(1, 2, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000),
    registry=REGISTRY,
)
CONSUMER_LAG = Gauge(
    "levelsync_consumer_lag_records",
    "Records of a partition that are not applied yet (end offset minus applied offset)",
    ["topic", "partition"],
    registry=REGISTRY,
)
DEAD_LETTERS = Gauge("levelsync_dead_letters", "Open dead letters", ["reason"], registry=REGISTRY)
OUTBOX_PENDING = Gauge("levelsync_outbox_pending", "Events in the outbox, not yet in Kafka", registry=REGISTRY)
OUTBOX_OLDEST = Gauge(
    "levelsync_outbox_oldest_seconds",
    "Age of the oldest event in the outbox; 0 when it is empty",
    registry=REGISTRY,
)
RETRIES = Counter("levelsync_retries", "Retries after a fault, by its cause", ["cause"], registry=REGISTRY)
RECORDS_LOST = Counter(
    "levelsync_records_lost",
    "Records that retention removed before they were read",
    ["topic", "partition"],
    registry=REGISTRY,
)
RECONCILE_RUNS = Counter("levelsync_reconcile_runs", "Reconcile runs that ended", ["result"], registry=REGISTRY)
RECONCILE_LAST_SUCCESS = Gauge(
    "levelsync_reconcile_last_success_timestamp_seconds",
    "Unix time at which the last complete scan ended",
    registry=REGISTRY,
)
RECONCILE_PERIOD = Gauge(
    "levelsync_reconcile_period_seconds", "The setting RECONCILE_EVERY; 0 when it is off", registry=REGISTRY
)
DRIFT_SCANS = Gauge(
    "levelsync_drift_scans",
    "Consecutive complete scans, up to the last one, that left drift that a write can repair",
    registry=REGISTRY,
)
DRIFT_PAIRS = Gauge(
    "levelsync_drift_pairs",
    "Pairs that the last complete scan left in disagreement",
    ["kind", "specialization"],
    registry=REGISTRY,
)
BUILD_INFO = Gauge(
    "levelsync_build_info",
    "Always 1; the labels are the release of this process and the revision of the database schema",
    ["version", "schema"],
    registry=REGISTRY,
)
RUNBOOK_INFO = Gauge(
    "levelsync_runbook_info",
    "Always 1 where `LEVELSYNC_RUNBOOK_URL` is set; the alert rules read the base of their links from its label",
    ["url"],
    registry=REGISTRY,
)
HEALS = Counter("levelsync_heals", "Pairs that a reconcile healed", ["direction", "kind"], registry=REGISTRY)

OUTCOMES = ("applied", "created", "equal", "ahead", "superseded", "dead_lettered")
CAUSES = ("database_unavailable", "kafka_unavailable", "conflict", "installation")
RESULTS = ("completed", "stopped_by_breaker", "cancelled", "expired")


def set_build_info(version: str, schema: str) -> None:
    """Set the only series of `levelsync_build_info`."""
    BUILD_INFO.clear()
    BUILD_INFO.labels(version, schema).set(1)


def set_runbook_url(url: str | None) -> None:
    """Set the only series of `levelsync_runbook_info`; without a URL, remove it."""
    RUNBOOK_INFO.clear()
    if url:
        RUNBOOK_INFO.labels(url).set(1)


def samples(metric: Any, suffix: str = "") -> list[tuple[dict[str, str], float]]:
    """Return the labels and the value of each sample of a metric in this process."""
    return [
        (sample.labels, sample.value)
        for family in metric.collect()
        for sample in family.samples
        if sample.name == family.name + suffix
    ]


def _begin_at_zero() -> None:
    for kind, outcome in product(TYPES, OUTCOMES):
        EVENTS.labels(kind, outcome)
    for histogram, kind in product((BATCH_SECONDS, BATCH_RECORDS), TYPES):
        histogram.labels(kind)
    for cause in CAUSES:
        RETRIES.labels(cause)
    for result in RESULTS:
        RECONCILE_RUNS.labels(result)
    for direction, kind in product(DIRECTIONS, HEALABLE):
        HEALS.labels(direction, kind)


_begin_at_zero()
