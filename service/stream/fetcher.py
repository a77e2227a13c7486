"""A fetcher for `LevelConsumer` that fetches by topic id and does not let a faulty partition stop the others.

aiokafka's own fetcher only logs most error codes of a fetch, so that the consumer stalls without an error. It
also loses the good records before a corrupt batch, and records that it has already taken from other partitions.
"""

from __future__ import annotations

import asyncio
import struct
import time
from itertools import islice
from typing import Any

import structlog
from aiokafka import TopicPartition
from aiokafka.consumer import consumer, fetcher
from aiokafka.consumer.fetcher import Fetcher, FetchResult, PartitionRecords
from aiokafka.errors import (
    KafkaError,
    NotLeaderForPartitionError,
    OffsetOutOfRangeError,
    UnknownError,
    UnknownTopicOrPartitionError,
    for_code,
)

from service.stream import records
from service.stream.background import cause_of
from service.stream.decompress import cut
from service.stream.protocol import FetchById, Fetched
from service.telemetry import metrics

log = structlog.get_logger(__name__)

PAUSE = 2.0
"""Seconds before the next fetch of a partition that cannot be read."""
_MOVED_LEADER = {NotLeaderForPartitionError.errno, UnknownTopicOrPartitionError.errno, 5, 9, 74, 75, 76}
"""Error codes that require new metadata. 5 and 9 mean no leader, 74 to 76 another leader epoch."""
_OTHER_TOPIC = {100, 103}
"""The error codes UNKNOWN_TOPIC_ID and INCONSISTENT_TOPIC_ID."""
_EPOCH = struct.Struct(">i")
_EPOCH_AT, _MAGIC_AT = 12, 16


class TopicChanged(KafkaError):  # type: ignore[misc]  # noqa: N818 - a state; aiokafka ships no types
    """The topic that was read does not exist any more. Another topic may have its name."""


class LogTruncated(KafkaError):  # type: ignore[misc]  # noqa: N818 - as above
    """The log was truncated below the position. `ends` has the offset at which each log was truncated."""

    def __init__(self, ends: dict[TopicPartition, int]) -> None:
        super().__init__(f"the log of {', '.join(f'{tp.topic}-{tp.partition}' for tp in ends)} was truncated")
        self.ends = ends


def fetch_by_id() -> None:
    """Patch aiokafka so that every consumer of this process fetches with `LevelFetcher`.

    Raises:
        RuntimeError: The installed aiokafka fetches in another way.
    """
    hooks = ("_proc_fetch_request", "_set_error", "_get_actions_per_node")
    ours = hasattr(consumer, "Fetcher") and hasattr(fetcher, "FetchResult")
    if not (ours and all(hasattr(Fetcher, hook) for hook in hooks)):
        raise RuntimeError("the installed aiokafka fetches in another way: see service/stream/fetcher.py")
    consumer.Fetcher = LevelFetcher
    fetcher.FetchResult = _Result  # aiokafka compares the exact type


class LevelFetcher(Fetcher):  # type: ignore[misc]  # as above
    """A fetcher by topic id that isolates the faults of partitions. See the module's docstring."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.topic_ids: dict[str, str] = {}
        """The id of each topic that is read, '' or absent if it is not known."""
        self.epochs: dict[TopicPartition, int] = {}
        """The leader epoch of the last batch that was read from each partition, also in part."""
        self.faults: dict[TopicPartition, Exception] = {}
        """The error of each partition that cannot be read at present. The fetcher retries it."""
        self.held: set[TopicPartition] = set()
        """Partitions that are paused until the rest of their batch is applied."""
        self.largest_poll = 16_000_000
        """The maximum size of what a poll returns from one partition, in bytes. One record is always returned."""
        super().__init__(*args, **options)

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch from one broker. Return whether there is something for those who wait for records or errors."""
        by_id = FetchById(request, self.topic_ids, self.epochs)
        try:
            answers = await self._request(node_id, by_id)
        except asyncio.CancelledError:  # the assignment or the consumer ends, and aiokafka waits for this task
            return False
        if not assignment.active:
            return False
        stored = [self._store(assignment, one) for one in answers if self._is_current(assignment, one)]
        return any(stored)

    async def _request(self, node_id: int, request: FetchById) -> list[Fetched]:
        """Return the broker's answers. Wait a little after an error, which a broker returns without delay."""
        try:
            answers = request.read(await self._client.send(node_id, request))
        except (KafkaError, KeyError) as error:  # KeyError: the answer is about a topic that was not requested
            log.warning("a fetch failed and is retried", broker=node_id, error=f"{type(error).__name__}: {error}")
            answers = []
        if not answers or any(answer.error_code for answer in answers):
            await asyncio.sleep(self._retry_backoff)
        return answers

    @staticmethod
    def _is_current(assignment: Any, answer: Fetched) -> bool:
        state = assignment.state_value(answer.partition)
        return bool(state.has_valid_position and state.position == answer.offset)

    def _store(self, assignment: Any, answer: Fetched) -> bool:
        """Store the answer for the next poll. Return whether it has records or an error."""
        partition = answer.partition
        if answer.truncated_at is not None:
            self._set_error(partition, LogTruncated({partition: answer.truncated_at}))
            return True
        if answer.error_code:
            return self._store_error(partition, answer)
        state = assignment.state_value(partition)
        state.highwater, state.lso = answer.high_watermark, answer.last_stable_offset
        state.timestamp = int(1000 * time.time())
        if not answer.records:
            self.faults.pop(partition, None)
            return False
        self._records[partition] = _Result(
            partition, self, assignment, self._partition_records(answer), self._prefetch_backoff
        )
        return True

    def _store_error(self, partition: TopicPartition, answer: Fetched) -> bool:
        code = answer.error_code
        if code in _MOVED_LEADER:
            self._client.force_metadata_update()
            return False
        if code in _OTHER_TOPIC:
            self._set_error(partition, TopicChanged(f"{partition.topic} was deleted"))
        elif code == OffsetOutOfRangeError.errno:
            self._set_error(partition, OffsetOutOfRangeError({partition: answer.offset}))
        else:
            kind = for_code(code)
            self.fail(partition, kind(f"error {code}" if kind is UnknownError else partition.topic))
        return True

    def _partition_records(self, answer: Fetched) -> Any:
        def store_epoch(batch: memoryview) -> None:
            self.epochs[answer.partition] = _EPOCH.unpack_from(batch, _EPOCH_AT)[0] if batch[_MAGIC_AT] > 1 else -1

        batches = fetcher.MemoryRecords(answer.records)
        batches.on_batch = store_epoch
        bounds = (answer.partition, batches, answer.aborted, answer.offset)
        return PartitionRecords(*bounds, None, None, self._check_crcs, self._isolation_level)

    def fail(self, partition: TopicPartition, error: Exception) -> None:
        """Pause a partition that cannot be read, and retry it later. The other partitions continue."""
        if partition not in self.faults:
            log.warning("a partition cannot be read and is retried", partition=str(partition), error=str(error))
        self.faults[partition] = error
        metrics.RETRIES.labels(cause_of(error)[0]).inc()
        assignment = self._subscriptions.subscription.assignment
        state = None if assignment is None else assignment.state_value(partition)
        if state is not None:
            state.pause()
            self._loop.call_later(PAUSE, self._resume, partition, state)

    def _resume(self, partition: TopicPartition, state: Any) -> None:
        if partition not in self.held:
            state.resume()


class _Result(FetchResult):  # type: ignore[misc]  # as above
    """Fetched records of a partition. The readable ones are returned before an unreadable one is reported."""

    def __init__(
        self, partition: TopicPartition, owner: LevelFetcher, assignment: Any, records: Any, backoff: float
    ) -> None:
        super().__init__(partition, assignment=assignment, partition_records=records, backoff=backoff)
        self._owner = owner

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records, or an empty list if the first of them cannot be read."""
        partition = self._topic_partition
        if not self.check_assignment(partition) or not self.has_more():
            return []
        found: list[Any] = []
        ended = failed = False
        try:
            ended = self._take(found, max_records)
        except Exception as error:  # noqa: BLE001 - no content of the records may stop the other partitions
            failed = True
            if not found:
                self._owner.fail(partition, error)
        self._update_position()
        if failed or ended:
            self._partition_records: Any = None
        if found:
            self._owner.faults.pop(partition, None)
        return found

    def _take(self, found: list[Any], max_records: int | None) -> bool:
        """Add records to `found` up to the limits. Return whether all records were added."""
        left, largest = self._owner.largest_poll, records.max_record_bytes()
        for record in islice(self._partition_records, max_records):
            if record.serialized_value_size > largest:
                record.value = cut(record.value, record.serialized_value_size, record.value[:largest])
                record.serialized_value_size = len(record.value)
            found.append(record)
            left -= max(record.serialized_value_size, 0) + max(record.serialized_key_size, 0)
            if left < 0:
                return False
        return max_records is None or len(found) < max_records
