"""What Kafka does not take: held back, so that it does not stand in the way of everything behind it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog
from aiokafka.errors import (
    InvalidTopicError,
    KafkaError,
    MessageSizeTooLargeError,
    PolicyViolationError,
    RecordListTooLargeError,
    TopicAuthorizationFailedError,
    UnknownTopicOrPartitionError,
)

from service.outbox.rows import Row

log = structlog.get_logger(__name__)
TOPIC_SECONDS = 5.0
"""How long a topic that refuses everything is left alone: it may be made, or its rights be given, meanwhile."""
_TOPIC_ERRORS = (InvalidTopicError, TopicAuthorizationFailedError, UnknownTopicOrPartitionError)
_ROW_ERRORS = (MessageSizeTooLargeError, RecordListTooLargeError, PolicyViolationError)


@dataclass(slots=True)
class HeldBack:
    """What one process leaves alone.

    A topic that cannot be written to is tried again every few seconds, for as long as that lasts; its events keep
    their order. A single event that Kafka refuses for itself (larger than 1 MB, or than the broker's own limit) will
    never be taken as things stand: it stays in the outbox, an error in the log names it, and the later events of its
    key do not wait for it. It is tried again when a process starts, and it is a person who deletes it.
    """

    rows: set[int] = field(default_factory=set)
    """Ids of events that are refused for themselves."""
    one_by_one_upto: int = 0
    """Events up to this id leave one at a time: Kafka refuses a batch for one of its records."""
    _topics: dict[str, tuple[float, str]] = field(default_factory=dict)

    def topics(self) -> dict[str, str]:
        """Topics to leave alone now, with Kafka's words."""
        now = time.monotonic()
        return {topic: words for topic, (until, words) in self._topics.items() if until > now}

    def hold_topics(self, topics: Mapping[str, str]) -> None:
        """Leave topics alone for a while."""
        for topic, words in topics.items():
            log.error("a topic takes no events, tried again", topic=topic, error=words)
            self._topics[topic] = (time.monotonic() + TOPIC_SECONDS, words)

    def sort(self, failed: Mapping[Row, KafkaError]) -> None:
        """Hold back what the failures of one batch say can not be taken; all other failures may pass."""
        self.hold_topics({row.topic: str(error) for row, error in failed.items() if isinstance(error, _TOPIC_ERRORS)})
        refused = {row: error for row, error in failed.items() if isinstance(error, _ROW_ERRORS)}
        if not refused:
            return
        last = max(row.id for row in refused)
        if last > self.one_by_one_upto:
            self.one_by_one_upto = last
        else:
            for row, error in refused.items():
                self._hold_row(row, error)

    def _hold_row(self, row: Row, error: KafkaError) -> None:
        self.rows.add(row.id)
        log.error(
            "an event is refused by Kafka and stays in the outbox",
            outbox_id=row.id,
            topic=row.topic,
            bytes=len(row.value or b""),
            error=str(error),
        )
