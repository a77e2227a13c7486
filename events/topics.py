"""The names of the contract's topics and CloudEvents types."""

PROGRESS_LEVELED_UP_TOPIC = "progress.leveled-up"
LICENSE_ADVANCED_TOPIC = "license.advanced"
RECONCILE_REQUESTED_TOPIC = "sync.reconcile-requested"
RECONCILE_CHUNKS_TOPIC = "sync.reconcile-chunks"
RECONCILE_COMPLETED_TOPIC = "sync.reconcile-completed"
LEVEL_SYNCED_TOPIC = "sync.level-synced"

PROGRESS_LEVELED_UP_TYPE = "progress.leveled-up.v1"
LICENSE_ADVANCED_TYPE = "license.advanced.v1"
RECONCILE_REQUESTED_TYPE = "sync.reconcile-requested.v1"
RECONCILE_CHUNK_TYPE = "sync.reconcile-chunk.v1"
RECONCILE_COMPLETED_TYPE = "sync.reconcile-completed.v1"
LEVEL_SYNCED_TYPE = "sync.level-synced.v1"

TOPICS = (
    PROGRESS_LEVELED_UP_TOPIC,
    LICENSE_ADVANCED_TOPIC,
    RECONCILE_REQUESTED_TOPIC,
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_COMPLETED_TOPIC,
    LEVEL_SYNCED_TOPIC,
)
"""Every topic of the contract."""
