"""An AIOKafkaConsumer for FastStream's subscribers that never skips a record (laws 3 and 4).

FastStream calls `getmany` and passes the records to the handler. This class changes a poll as follows:

- It starts the partitions of a new assignment at the positions that the database and the group's commit require,
  before it returns any of their records.
- After a failed poll it rewinds every partition, because aiokafka may already have taken records from some of them.
- It returns a batch again if the handler did not finish it, because FastStream swallows the errors of a handler.
- It stores offsets that deliver no record while there is no current batch.
- It returns only with records, because FastStream sleeps after an empty poll.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog
from aiokafka import (
    AIOKafkaConsumer,
    ConsumerRebalanceListener,
    ConsumerRecord,
    OffsetAndMetadata,
    TopicPartition,
)
from aiokafka.errors import (
    ConsumerStoppedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)

from service.stream.background import backoff, cause_of, stop
from service.stream.connection import close
from service.stream.fetcher import LevelFetcher, LogTruncated, TopicChanged
from service.stream.positions import Batch, Start
from service.stream.protocol import read_topic_ids
from service.telemetry import metrics

log = structlog.get_logger(__name__)

MAX_HELD = 5000
"""The maximum number of records that wait for locks of other sessions, in addition to the current batch."""
END_HELD_TIMEOUT = 2.0
"""Seconds to wait until tasks that wait for a lock have ended after their cancellation."""
COMMIT_TIMEOUT = 5.0
"""Seconds to wait for a commit. The next commit repeats it, so a longer wait would only delay the next batch."""
REFRESH_MS = 3
"""Milliseconds that a poll with only a few records waits for newer ones."""
FEW = 500
"""A poll that returns fewer records may wait for newer ones. A poll with more is reading a backlog."""
FETCHED_AHEAD = 0.001
"""A poll that takes fewer seconds did not wait, so its records were fetched while the previous batch was applied."""
COMMIT_EVERY = 0.2
"""Seconds between commits while one batch follows another. The database already has the positions, and a commit takes
as long as a small batch. An idle consumer, a rebalance and a stop commit without this delay.
"""
COMMIT_BACKOFF = 2.0
"""Seconds before an idle consumer retries a failed commit. A finished batch commits without this delay."""
DRAIN_TIMEOUT = 20.0
"""Seconds that a rebalance waits for the current batch. It must be shorter than the group's rebalance timeout."""
EVICTION_WAIT = 10.0
"""Seconds to wait for a rebalance after the position row showed that another member owns a partition."""
POLL_BACKOFF, LONGEST_POLL_BACKOFF = 1.0, 4.0
"""Seconds before the next poll after a failed one, doubled with each failure in a row, and their maximum."""
CHECK_EVERY = 5.0
"""Seconds between two checks of the position rows without records. Only this check finds a restored database."""


# A rebalance happened between two steps of a poll, or the fetcher ran before the first seek. Neither is an error.
_REBALANCE_ERRORS = (IllegalStateError, NoOffsetForPartitionError)


# Retention deleted the next records, or the topic or its log was replaced. `starting_point` decides where to continue.
_RESTART_ERRORS = (OffsetOutOfRangeError, TopicChanged, LogTruncated)


class Unfinished(Exception):  # noqa: N818 - a state, not an error
    """A handler ended without finishing its batch. This is always a defect of levelsync."""


@dataclass(slots=True, eq=False)
class Held:
    """The rest of a batch in one partition, while another session locks its rows (`LevelConsumer.set_aside`)."""

    rest: Batch
    retrying: bool = False
    """Whether a transient fault is being retried, as in `LevelConsumer.retrying`."""
    owns_batch: bool = True
    """Whether the rest still has to be applied. After the partition was restarted, its task must have no effect."""

    @property
    def partition(self) -> TopicPartition:
        """The partition of all records in the rest."""
        [partition] = self.rest.expected
        return partition


class PositionStore(Protocol):
    """Storage of the positions. `service.stream.positions` stores them in PostgreSQL."""

    async def start(
        self,
        committed: Mapping[TopicPartition, int | None],
        log_starts: Mapping[TopicPartition, int],
        read_log_ends: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        *,
        topic_ids: Mapping[str, str],
        truncated_at: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, Start]:
        """Return where to start each partition of a new assignment, and what its position row contains then.

        `read_log_ends` must be called after the rows were read. Otherwise another member could move a row beyond the
        end that was read. `truncated_at` has the offsets at which logs were truncated below the position.
        """

    async def store_idle(self, batch: Batch) -> None:
        """Check the rows of a batch without records, and store positions that moved past offsets without records."""


class LevelConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """A consumer that never skips a record. See the module's docstring. One task of one subscriber uses it."""

    def __init__(
        self, *topics: str, store: PositionStore, max_bytes: int, may_read: asyncio.Event, **options: Any
    ) -> None:
        super().__init__(*topics, **options)
        self._may_read = may_read
        self._store = store
        self._max_bytes = max_bytes
        self._epoch = 0
        self._started_epoch = 0
        self._expected: dict[TopicPartition, int] = {}
        self._applied: dict[TopicPartition, int] = {}
        self._uncommitted: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._truncated_at: dict[TopicPartition, int] = {}
        self._evicted_at: float | None = None
        self._checked_at = 0.0
        self._committed_at = -COMMIT_EVERY
        self._commit_failed_at = -COMMIT_BACKOFF
        self._failures = 0
        self.batch: Batch | None = None
        """The current batch: the records of the last poll, until the batch is finished or abandoned."""
        self._held: dict[Held, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.retrying = False
        """Whether a transient fault is being retried. The watchdog does not count that as a stall."""
        self._problem = ""

    def subscribe(self, topics: Any = (), pattern: Any = None, listener: Any = None) -> None:  # noqa: ARG002 - FastStream's only logs
        """Subscribe with our own rebalance listener instead of the given one."""
        super().subscribe(topics=topics, pattern=pattern, listener=_Rebalance(self))

    @property
    def problem(self) -> str:
        """Why polls fail at present, or which partitions cannot be read, or '' without a problem."""
        faults = self._level_fetcher.faults if self._fetcher is not None else {}
        unread = "; ".join(f"{tp.topic}-{tp.partition}: {_message(error)}" for tp, error in sorted(faults.items()))
        return (self._problem or unread)[:500]

    # --- used by the handler of a subscriber

    @property
    def owns_batch(self) -> bool:
        """Whether this consumer still owns the partitions of the current batch."""
        return self._epoch == self._started_epoch

    def owned_positions(self) -> dict[TopicPartition, int]:
        """Return the offset after the last applied record of each started partition that can be read.

        Partitions that wait for a lock of another session are left out, because they are not stalled.
        """
        if not self.owns_batch:
            return {}
        return {tp: at for tp, at in self._applied.items() if tp not in self._level_fetcher.faults}

    def not_started(self) -> set[TopicPartition]:
        """Return the partitions of the last assignment if they are not started yet, or wait for a rebalance."""
        waiting: set[TopicPartition] = set() if self.owns_batch else set(self.assignment())
        return waiting

    async def finish(self) -> None:
        """Continue after the current batch, which is in the database. Commit to Kafka at most every COMMIT_EVERY."""
        positions = self.batch.positions if self.batch is not None else {}
        self._expected |= {tp: max(at, self._expected[tp]) for tp, at in positions.items()}
        self._applied |= positions
        self._uncommitted |= positions
        try:
            if time.monotonic() - self._committed_at >= COMMIT_EVERY:
                await self._commit()
        finally:
            self.batch = None
            self._idle.set()

    def abandon(self, *, wait_for_rebalance: bool) -> None:
        """Abandon the current batch, and restart its partitions from the database and the group's commit."""
        self.batch = None
        self._idle.set()
        self.restart_partitions(wait_for_rebalance=wait_for_rebalance)

    def restart_partitions(self, *, wait_for_rebalance: bool) -> None:
        """Restart every partition with the next poll."""
        self._started_epoch = -1
        self._evicted_at = time.monotonic() if wait_for_rebalance else None

    async def set_aside(self, rest: Batch, apply: Callable[[Held], Coroutine[Any, Any, None]]) -> None:
        """Pause a partition until `apply` has stored the rest of the current batch in the database.

        The other partitions continue. The rests stay in memory, so this waits first if more than MAX_HELD records
        would be set aside.
        """
        while self._held and sum(len(one.rest.records) for one in self._held) + len(rest.records) > MAX_HELD:
            await asyncio.wait(self._held.values(), return_when=asyncio.FIRST_COMPLETED)
        if self.batch is None or not self.owns_batch:
            return  # all partitions are restarted
        held = Held(rest)
        partition = held.partition
        self.pause(partition)
        self._level_fetcher.held.add(partition)
        del self._expected[partition], self._applied[partition]
        self.batch = replace(
            self.batch, positions={tp: at for tp, at in self.batch.positions.items() if tp != partition}
        )
        name = f"{partition.topic}-{partition.partition}"
        log.info("a partition waits for rows that another session locks", partition=name, records=len(rest.records))
        task = self._held[held] = asyncio.create_task(apply(held))
        task.add_done_callback(lambda _: self._held.pop(held, None))

    def continue_after(self, held: Held) -> None:
        """Resume a partition after its rest was stored in the database."""
        if not held.owns_batch:
            return
        partition = held.partition
        at = held.rest.positions[partition]
        self._expected[partition] = max(at, held.rest.expected[partition])
        self._applied[partition] = self._uncommitted[partition] = at
        self._level_fetcher.held.discard(partition)
        self.resume(partition)
        held.owns_batch = False

    async def _end_held(self) -> None:
        """Cancel the tasks that apply rests. Their records are read again.

        A transaction that does not end in time does no harm, because it compares the position rows (law 3).
        """
        tasks = list(self._held.values())
        for held, task in self._held.items():
            held.owns_batch = False
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=END_HELD_TIMEOUT)
        self._held = {}
        if self._fetcher is not None:
            self._level_fetcher.held.clear()

    # --- called by FastStream

    async def stop(self) -> None:
        """Commit the applied positions and leave the group."""
        await self._end_held()
        await self._commit()
        await super().stop()

    async def end(self) -> None:
        """Clean up after an interrupted stop. The tasks end first, because they would open connections again."""
        await self._end_held()
        coordinator = self._coordinator
        if coordinator is not None:
            for task in (
                coordinator._coordination_task,  # noqa: SLF001 - an interrupted close of aiokafka leaves some running
                coordinator._heartbeat_task,  # noqa: SLF001 - as above
                coordinator._commit_refresh_task,  # noqa: SLF001 - as above
            ):
                if task is not None:
                    await stop(task)
        if self._fetcher is not None:
            await self._fetcher.close()
        await close(self._client)

    async def getmany(
        self,
        *partitions: TopicPartition,  # noqa: ARG002 - FastStream polls all
        timeout_ms: int = 0,
        max_records: int | None = None,
    ) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Wait without a limit for the next records. Put them into `batch`, and return only the first of them.

        FastStream keeps the returned records until the next poll returns, which would be a second batch in memory.
        """
        await self._may_read.wait()
        while True:
            try:
                records = await self._poll(timeout_ms, max_records)
            except (ConsumerStoppedError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - after any error, no record that was taken may be skipped
                await self._poll_failed(error)
            else:
                self.retrying, self._problem, self._failures = False, "", 0
                if records:
                    partition, found = next(iter(records.items()))
                    return {partition: found[:1]}

    async def _poll(self, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[ConsumerRecord]]:
        if self.batch is not None:
            self.abandon(wait_for_rebalance=False)
            raise Unfinished("the handler did not finish its batch, which is delivered again")
        self._coordinator.check_errors()
        self._check_readable()
        if self._started_epoch != self._epoch:
            await self._start_partitions()
        epoch = self._epoch
        records = await self._read(timeout_ms, max_records)
        if epoch != self._epoch or not self._expected.keys() >= records.keys():
            self._started_epoch = -1  # the records are from an assignment that has not started, which will seek first
            return {}
        records = self._limit_bytes(records)
        positions = {tp: await self.position(tp) for tp in list(self._expected)}
        if records:
            self._take(records, positions)
        else:
            await self._store_idle(positions)
        return records

    # --- the steps of a poll

    def _check_readable(self) -> None:
        """Raise an error for a topic without rights, because aiokafka would only wait for its partitions.

        Raises:
            TopicAuthorizationFailedError: The user may not describe the topic.
        """
        for topic in sorted(self.subscription() & self._client.cluster.unauthorized_topics):
            raise TopicAuthorizationFailedError(topic)

    async def _read(self, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[ConsumerRecord]]:
        """Return the records that were fetched during the previous batch, together with those that came since.

        Without the second poll, the newer records would wait until another batch is applied.
        """
        began = time.monotonic()
        records: dict[TopicPartition, list[ConsumerRecord]]
        records = await super().getmany(timeout_ms=timeout_ms, max_records=max_records)
        found, most = sum(map(len, records.values())), min(max_records or FEW, FEW)
        if 0 < found < most and time.monotonic() - began < FETCHED_AHEAD:
            for partition, more in (await super().getmany(timeout_ms=REFRESH_MS, max_records=most - found)).items():
                records.setdefault(partition, []).extend(more)
        return records

    async def _start_partitions(self) -> None:
        """Seek every partition of a new assignment to its starting point, and store what its position row contains."""
        await self._end_held()
        await self._wait_out_eviction()
        self.resume(*self.paused())
        epoch, partitions = self._epoch, self.assignment()
        self._expected, self._applied, self._uncommitted = {}, {}, {}
        if partitions:
            topic_ids = await read_topic_ids(self._client, sorted({tp.topic for tp in partitions}))
            committed = {tp: await self.committed(tp) for tp in partitions}
            log_starts = await self.beginning_offsets(partitions)
            starts = await self._store.start(
                committed,
                log_starts,
                lambda: self._log_ends(topic_ids, partitions),
                topic_ids=topic_ids,
                truncated_at=self._truncated_at,
            )
            if epoch != self._epoch:
                return
            self._begin(starts, topic_ids)
            self._uncommitted = {tp: start.seek for tp, start in starts.items() if committed[tp] != start.seek}
        self._started_epoch = epoch
        await self._commit()

    async def _log_ends(
        self, topic_ids: Mapping[str, str], partitions: Collection[TopicPartition]
    ) -> dict[TopicPartition, int]:
        """Read the ends of the partitions, and check that the topics are still those of `topic_ids`.

        `partitions` is an argument because a rebalance may have changed the assignment.

        Raises:
            TopicChanged: A topic was replaced, so the offsets that were read may belong to the other one.
        """
        ends: dict[TopicPartition, int] = await self.end_offsets(partitions)
        if await read_topic_ids(self._client, sorted(topic_ids)) != topic_ids:
            raise TopicChanged("a topic was just deleted and created again")
        return ends

    def _begin(self, starts: Mapping[TopicPartition, Start], topic_ids: dict[str, str]) -> None:
        fetcher = self._level_fetcher
        fetcher.topic_ids = self._topic_ids = topic_ids
        fetcher.epochs = {tp: start.epoch for tp, start in starts.items()}
        fetcher.faults, self._truncated_at = {}, {}
        fetcher.largest_poll = self._max_bytes
        for partition, start in starts.items():
            self.seek(partition, start.seek)
        self._expected = {tp: start.row for tp, start in starts.items()}
        self._applied = {tp: start.seek for tp, start in starts.items()}

    @property
    def _level_fetcher(self) -> LevelFetcher:
        fetcher: LevelFetcher = self._fetcher
        return fetcher

    async def _wait_out_eviction(self) -> None:
        """After an eviction, wait for the rebalance that shows the new owner, but no longer than EVICTION_WAIT."""
        since, self._evicted_at = self._evicted_at, None
        epoch = self._epoch
        while since is not None and epoch == self._epoch and time.monotonic() - since < EVICTION_WAIT:
            await asyncio.sleep(0.1)

    def _limit_bytes(self, records: dict[TopicPartition, list[ConsumerRecord]]) -> dict[TopicPartition, list[Any]]:
        """Return the records up to the byte limit of a batch, and at least one. Seek back to fetch the others again."""
        kept: dict[TopicPartition, list[ConsumerRecord]] = {}
        left = self._max_bytes
        for partition, delivered in records.items():
            for index, record in enumerate(delivered):
                left -= max(record.serialized_value_size, 0) + max(record.serialized_key_size, 0)
                if left < 0 and (kept or index):
                    self.seek(partition, record.offset)
                    break
                kept.setdefault(partition, []).append(record)
        return kept

    def _take(self, records: dict[TopicPartition, list[ConsumerRecord]], positions: dict[TopicPartition, int]) -> None:
        # Check every row, also of partitions without records: a database that went back in time changed all of them.
        flat = [record for partition in records.values() for record in partition]
        self.batch = self._batch_of(flat, self._moved(positions))
        self._idle.clear()

    def _batch_of(self, records: list[ConsumerRecord], moved: dict[TopicPartition, int]) -> Batch:
        epochs = {tp: self._level_fetcher.epochs.get(tp, -1) for tp in moved}
        return Batch(records, dict(self._expected), moved, self._topic_ids, epochs)

    def _moved(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {tp: at for tp, at in positions.items() if at != self._applied[tp]}

    async def _store_idle(self, positions: dict[TopicPartition, int]) -> None:
        """Store positions that moved past transaction markers, aborted or compacted records. There is no batch."""
        moved = self._moved(positions)
        if moved or time.monotonic() - self._checked_at >= CHECK_EVERY:
            try:
                await self._store.store_idle(self._batch_of([], moved))
            except BaseException:
                self._started_epoch = -1  # evicted, or the database went back in time, so the partitions are restarted
                raise
            self._checked_at = time.monotonic()
            self._expected |= {tp: max(at, self._expected[tp]) for tp, at in moved.items()}
            self._applied |= moved
            self._uncommitted |= moved
        if time.monotonic() - self._commit_failed_at >= COMMIT_BACKOFF:
            await self._commit()

    async def _poll_failed(self, error: Exception) -> None:
        """Rewind every partition to its applied position, so that no record that the failed poll took is skipped."""
        self._rewind()
        if isinstance(error, _RESTART_ERRORS):
            if isinstance(error, LogTruncated):
                self._truncated_at |= error.ends
            log.info("partitions are restarted", reason=f"{type(error).__name__}: {error}")
            self._started_epoch = -1
        elif not isinstance(error, _REBALANCE_ERRORS):
            self.retrying, self._problem = True, _message(error)
            metrics.RETRIES.labels(cause_of(error)[0]).inc()
            log.warning("a poll failed and is retried", error=self._problem)
            self._revive_membership()
            await asyncio.sleep(backoff(self._failures, POLL_BACKOFF, LONGEST_POLL_BACKOFF))
            self._failures += 1

    def _revive_membership(self) -> None:
        """Restart tasks of aiokafka that ended with an error. Otherwise this member would leave the group for good."""
        coordinator = self._coordinator
        background = (coordinator._heartbeat_task, coordinator._commit_refresh_task)  # noqa: SLF001 - see above
        if any(task is not None and task.done() for task in background):
            coordinator.request_rejoin()
        if coordinator._coordination_task.done():  # noqa: SLF001 - as above
            coordinator._coordination_task = asyncio.create_task(coordinator._coordination_routine())  # noqa: SLF001
            coordinator.request_rejoin()

    def _rewind(self) -> None:
        for partition, offset in self._applied.items():
            try:
                self.seek(partition, offset)
            except IllegalStateError:
                self._started_epoch = -1

    async def _commit(self) -> None:
        """Commit the applied position of each partition. The next commit repeats a failed one."""
        if not self._uncommitted or self._epoch != self._started_epoch:
            return
        offsets = {tp: OffsetAndMetadata(at, "") for tp, at in self._uncommitted.items()}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await self.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            self._commit_failed_at = time.monotonic()
            log.warning("commit failed; the next commit repeats it", error=f"{type(error).__name__}: {error}")
        else:
            self._committed_at = time.monotonic()
            done = {tp: committed.offset for tp, committed in offsets.items()}
            self._uncommitted = {tp: at for tp, at in self._uncommitted.items() if done.get(tp) != at}


def _message(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # as above
    """Registers a new assignment, and waits for the current batch before its partitions are revoked."""

    def __init__(self, consumer: LevelConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the current batch, but no longer than DRAIN_TIMEOUT. Afterwards, `owns_batch` is false."""
        await self._consumer._end_held()  # noqa: SLF001 - part of the consumer
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT if not self._consumer.retrying else 0):
                await self._consumer._idle.wait()  # noqa: SLF001 - as above
        except TimeoutError:
            log.warning("partitions revoked before their batch was finished", partitions=len(revoked))
        await self._consumer._end_held()  # noqa: SLF001 - as above; the batch may have set a rest aside
        await self._consumer._commit()  # noqa: SLF001 - as above
        self._consumer._epoch += 1  # noqa: SLF001 - as above

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Register the assignment. The next poll starts the partitions before it reads from them."""
        self._consumer._epoch += 1  # noqa: SLF001 - as above
        names = sorted(f"{tp.topic}-{tp.partition}" for tp in assigned)
        log.info("partitions assigned", partitions=names)
