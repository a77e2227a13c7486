"""Every metric, declared once with its meaning. Labels are bounded: never a user's id."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

REGISTRY = CollectorRegistry()

EVENTS = Counter("levelsync_events", "Events decided, by what became of them", ["type", "outcome"], registry=REGISTRY)
EVENT_DELAY = Histogram(
    "levelsync_event_delay_seconds",
    "From when an event occurred to when its effect was committed",
    ["type"],
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 7200, 43200),
    registry=REGISTRY,
)
BATCH_SECONDS = Histogram(
    "levelsync_batch_seconds",
    "One batch from the poll to the commit in PostgreSQL",
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
    "Records of a partition that are not applied yet (end offset less applied offset)",
    ["topic", "partition"],
    registry=REGISTRY,
)
DEAD_LETTERS = Gauge("levelsync_dead_letters", "Open dead letters", ["reason"], registry=REGISTRY)
OUTBOX_PENDING = Gauge("levelsync_outbox_pending", "Events in the outbox, not yet in Kafka", registry=REGISTRY)
RETRIES = Counter("levelsync_retries", "Attempts repeated after a fault, by its cause", ["cause"], registry=REGISTRY)
RECORDS_LOST = Counter(
    "levelsync_records_lost",
    "Records that retention removed before they were read",
    ["topic", "partition"],
    registry=REGISTRY,
)
RECONCILE_RUNS = Counter("levelsync_reconcile_runs", "Reconcile runs that ended", ["result"], registry=REGISTRY)
RECONCILE_LAST_SUCCESS = Gauge(
    "levelsync_reconcile_last_success_timestamp_seconds", "When the last complete run ended", registry=REGISTRY
)
DRIFT_PAIRS = Gauge(
    "levelsync_drift_pairs",
    "Pairs in disagreement, by the last complete scan",
    ["kind", "specialization"],
    registry=REGISTRY,
)
HEALS = Counter("levelsync_heals", "Pairs that a reconcile healed", ["direction", "kind"], registry=REGISTRY)
