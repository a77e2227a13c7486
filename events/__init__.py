"""The contract: what services say to each other about levels, and how it looks on Kafka (CloudEvents 1.0).

A publisher makes an event and sends what `to_kafka()` gives. A consumer calls `read` on every record.
The package needs pydantic only and does no input or output; docs/contract.md tells it for other languages.
"""

from events.base import Event
from events.catalogue import BY_TYPE, MODELS
from events.fields import Direction
from events.level_synced import LevelSynced
from events.license_advanced import LicenseAdvanced
from events.lines import read_line
from events.progress_leveled_up import ProgressLeveledUp
from events.reading import Received, read
from events.reasons import ContractViolation, Reason
from events.reconcile_chunk import ReconcileChunk
from events.reconcile_completed import ReconcileCompleted
from events.reconcile_requested import ReconcileRequested
from events.topics import (
    LEVEL_SYNCED_TOPIC,
    LEVEL_SYNCED_TYPE,
    LICENSE_ADVANCED_TOPIC,
    LICENSE_ADVANCED_TYPE,
    PROGRESS_LEVELED_UP_TOPIC,
    PROGRESS_LEVELED_UP_TYPE,
    RECONCILE_CHUNK_TYPE,
    RECONCILE_CHUNKS_TOPIC,
    RECONCILE_COMPLETED_TOPIC,
    RECONCILE_COMPLETED_TYPE,
    RECONCILE_REQUESTED_TOPIC,
    RECONCILE_REQUESTED_TYPE,
    TOPICS,
)
from events.writing import KafkaRecord

__all__ = [
    "BY_TYPE",
    "LEVEL_SYNCED_TOPIC",
    "LEVEL_SYNCED_TYPE",
    "LICENSE_ADVANCED_TOPIC",
    "LICENSE_ADVANCED_TYPE",
    "MODELS",
    "PROGRESS_LEVELED_UP_TOPIC",
    "PROGRESS_LEVELED_UP_TYPE",
    "RECONCILE_CHUNKS_TOPIC",
    "RECONCILE_CHUNK_TYPE",
    "RECONCILE_COMPLETED_TOPIC",
    "RECONCILE_COMPLETED_TYPE",
    "RECONCILE_REQUESTED_TOPIC",
    "RECONCILE_REQUESTED_TYPE",
    "TOPICS",
    "ContractViolation",
    "Direction",
    "Event",
    "KafkaRecord",
    "LevelSynced",
    "LicenseAdvanced",
    "ProgressLeveledUp",
    "Reason",
    "Received",
    "ReconcileChunk",
    "ReconcileCompleted",
    "ReconcileRequested",
    "read",
    "read_line",
]
