"""A fetcher for `LevelConsumer`: it fetches by topic id, and one partition's fault stops no other partition.

aiokafka's own fetcher only logs most error codes of a fetch, so that a consumer stands still without a word. It loses
the good records in front of a corrupt batch, and what it drained from other partitions.
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
"""Seconds that a partition which cannot be read waits for its next fetch."""
_MOVED_LEADER = {NotLeaderForPartitionError.errno, UnknownTopicOrPartitionError.errno, 5, 9, 74, 75, 76}
"""Error codes after which the metadata is asked for again: 5 and 9 are no leader, 74 to 76 another leader epoch."""
_OTHER_TOPIC = {100, 103}
"""UNKNOWN_TOPIC_ID and INCONSISTENT_TOPIC_ID."""
_EPOCH = struct.Struct(">i")
_EPOCH_AT, _MAGIC_AT = 12, 16


class TopicChanged(KafkaError):  # type: ignore[misc]  # noqa: N818 - a state; aiokafka ships no types
    """The topic that was read does not exist any more; another one may have its name."""


class LogCut(KafkaError):  # type: ignore[misc]  # noqa: N818 - as above
    """The log was cut off below the position; `ends` says where it ended then."""

    def __init__(self, ends: dict[TopicPartition, int]) -> None:
        super().__init__(f"the log of {', '.join(f'{tp.topic}-{tp.partition}' for tp in ends)} was cut off and goes on")
        self.ends = ends


def fetch_by_id() -> None:
    """Let every consumer of this process fetch with `LevelFetcher`.

    Raises:
        RuntimeError: this aiokafka fetches differently.
    """
    hooks = ("_proc_fetch_request", "_set_error", "_get_actions_per_node")
    ours = hasattr(consumer, "Fetcher") and hasattr(fetcher, "FetchResult")
    if not (ours and all(hasattr(Fetcher, hook) for hook in hooks)):
        raise RuntimeError("this aiokafka fetches differently: see service/stream/fetcher.py")
    consumer.Fetcher = LevelFetcher
    fetcher.FetchResult = _Result  # it is recognised by its exact type


class LevelFetcher(Fetcher):  # type: ignore[misc]  # as above
    """See the module's docstring."""

    def __init__(self, *args: Any, **options: Any) -> None:
        self.topic_ids: dict[str, str] = {}
        """The id of each topic that is read; '' or absent where it is not known."""
        self.epochs: dict[TopicPartition, int] = {}
        """The leader epoch of the last batch that was begun, by partition."""
        self.faults: dict[TopicPartition, Exception] = {}
        """Why a partition cannot be read at present. It is tried again by itself."""
        self.held: set[TopicPartition] = set()
        """Partitions that are paused until their batch is applied."""
        self.largest_poll = 16_000_000
        """Bytes of one partition that a poll returns at most, or one record."""
        super().__init__(*args, **options)

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch from one broker; return whether somebody who waits has something to look at."""
        by_id = FetchById(request, self.topic_ids, self.epochs)
        try:
            answers = await self._ask(node_id, by_id)
        except asyncio.CancelledError:  # the assignment or the consumer ends; aiokafka waits for this task
            return False
        if not assignment.active:
            return False
        kept = [self._keep(assignment, one) for one in answers if self._still_asked_for(assignment, one)]
        return any(kept)

    async def _ask(self, node_id: int, request: FetchById) -> list[Fetched]:
        """Return what the broker answers; after an error wait a little, because a broker answers with it at once."""
        try:
            answers = request.read(await self._client.send(node_id, request))
        except (KafkaError, KeyError) as error:  # KeyError: an answer about a topic that was not asked for
            log.warning("a fetch failed, tried again", broker=node_id, error=f"{type(error).__name__}: {error}")
            answers = []
        if not answers or any(answer.error_code for answer in answers):
            await asyncio.sleep(self._retry_backoff)
        return answers

    @staticmethod
    def _still_asked_for(assignment: Any, answer: Fetched) -> bool:
        state = assignment.state_value(answer.partition)
        return bool(state.has_valid_position and state.position == answer.offset)

    def _keep(self, assignment: Any, answer: Fetched) -> bool:
        """Keep the answer for whoever polls next; return whether there is something."""
        partition = answer.partition
        if answer.cut_at is not None:
            self._set_error(partition, LogCut({partition: answer.cut_at}))
            return True
        if answer.error_code:
            return self._keep_error(partition, answer)
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

    def _keep_error(self, partition: TopicPartition, answer: Fetched) -> bool:
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
        def note(batch: memoryview) -> None:
            self.epochs[answer.partition] = _EPOCH.unpack_from(batch, _EPOCH_AT)[0] if batch[_MAGIC_AT] > 1 else -1

        batches = fetcher.MemoryRecords(answer.records)
        batches.note = note
        bounds = (answer.partition, batches, answer.aborted, answer.offset)
        return PartitionRecords(*bounds, None, None, self._check_crcs, self._isolation_level)

    def fail(self, partition: TopicPartition, error: Exception) -> None:
        """Pause a partition that cannot be read, and try it again later; the others go on."""
        if partition not in self.faults:
            log.warning("a partition cannot be read, tried again", partition=str(partition), error=str(error))
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
    """Records that were fetched. What can be read of them is returned before what cannot is reported."""

    def __init__(
        self, partition: TopicPartition, owner: LevelFetcher, assignment: Any, records: Any, backoff: float
    ) -> None:
        super().__init__(partition, assignment=assignment, partition_records=records, backoff=backoff)
        self._owner = owner

    def getall(self, max_records: int | None = None) -> list[Any]:
        """Return the next records; none where the first of them cannot be read."""
        partition = self._topic_partition
        if not self.check_assignment(partition) or not self.has_more():
            return []
        found: list[Any] = []
        ended = failed = False
        try:
            ended = self._take(found, max_records)
        except Exception as error:  # noqa: BLE001 - whatever the records hold, it is this partition's fault alone
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
        """Add records to `found` within the bounds; return whether there are no more."""
        left, largest = self._owner.largest_poll, records.largest()
        for record in islice(self._partition_records, max_records):
            if record.serialized_value_size > largest:
                record.value = cut(record.value, record.serialized_value_size, record.value[:largest])
                record.serialized_value_size = len(record.value)
            found.append(record)
            left -= max(record.serialized_value_size, 0) + max(record.serialized_key_size, 0)
            if left < 0:
                return False
        return max_records is None or len(found) < max_records
