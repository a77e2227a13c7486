"""The contract: the events that services exchange about levels, and their form on Kafka (CloudEvents 1.0).

A publisher creates an event and sends the record that `to_kafka()` returns. A consumer calls `read` on every record.
The package needs pydantic only and does no input or output; docs/contract.md describes it for other languages.
"""

from events.base import Direction, Event
from events.levels import LevelSynced, LicenseAdvanced, ProgressLeveledUp
from events.reading import BY_TYPE, MODELS, Received, read, read_line
from events.reasons import ContractViolation, Reason
from events.reconcile import ReconcileChunk, ReconcileCompleted, ReconcileRequested
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
