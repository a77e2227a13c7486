"""A histogram that takes many values at once: one `observe` an event was a twentieth of an applier's CPU."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class BatchHistogram(Collector):
    """As prometheus_client's Histogram with one label, whose values are known beforehand and begin at 0."""

    def __init__(  # noqa: PLR0913 - what a histogram is declared with
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
        """What is counted here, without its counts."""
        yield HistogramMetricFamily(self._name, self._documentation, labels=[self._label])

    def collect(self) -> Iterable[HistogramMetricFamily]:
        """What the registry asks for: cumulative counts by bucket, and the sum."""
        (family,) = self.describe()
        for value, counts in self._counts.items():
            family.add_metric([value], list(zip(self._names, counts, strict=True)), self._sums[value])
        yield family
