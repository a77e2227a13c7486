"""levelsync's contract: the events, their CloudEvents binding for Kafka, topics and schemas. Needs pydantic only.

>>> from events import ProgressLeveledUp
>>> topic, key, value, headers = ProgressLeveledUp(user_id=42, specialization="PLAYER", to_level=5).to_kafka()
"""

from events.catalogue import BY_TYPE, MODELS
from events.level_synced import LevelSynced
from events.license_advanced import LicenseAdvanced
from events.lines import read_line
from events.progress_leveled_up import ProgressLeveledUp
from events.reading import Received, read
from events.reasons import ContractViolation, Reason
from events.reconcile_chunk import ReconcileChunk
from events.reconcile_completed import ReconcileCompleted
from events.reconcile_requested import Direction, ReconcileRequested
from events.topics import (
    LICENSE_ADVANCED_TOPIC,
    LICENSE_ADVANCED_TYPE,
    PROGRESS_LEVELED_UP_TOPIC,
    PROGRESS_LEVELED_UP_TYPE,
    TOPICS,
)
from events.writing import KafkaRecord

__all__ = [
    "BY_TYPE",
    "LICENSE_ADVANCED_TOPIC",
    "LICENSE_ADVANCED_TYPE",
    "MODELS",
    "PROGRESS_LEVELED_UP_TOPIC",
    "PROGRESS_LEVELED_UP_TYPE",
    "TOPICS",
    "ContractViolation",
    "Direction",
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
