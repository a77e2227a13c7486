"""An AIOKafkaConsumer for FastStream's subscribers that never passes a record (laws 3 and 4).

FastStream polls `getmany` and hands the records to the handler. This class changes what a poll is:

- a new assignment starts where the database and the group's commit say, before any record of it is delivered;
- a poll that fails rewinds every partition: aiokafka may have drained some of them already;
- a batch that its handler did not finish is delivered again: FastStream swallows a handler's error;
- offsets that deliver no record are stored when no batch is in hand;
- a poll comes back only with records, because FastStream sleeps after an empty one.
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
from service.stream.fetcher import LevelFetcher, LogCut, TopicChanged
from service.stream.positions import Batch, Start
from service.stream.protocol import read_topic_ids
from service.telemetry import metrics

log = structlog.get_logger(__name__)

MOST_HELD = 5000
"""Records that wait for somebody else's locks at once, beside the batches that follow."""
END_HELD_TIMEOUT = 2.0
"""Seconds to wait until those who wait for a lock have ended."""
COMMIT_TIMEOUT = 5.0
"""Seconds to wait for a commit: it is repeated with the next one, so waiting longer only delays the next batch."""
REFRESH_MS = 3
"""Milliseconds that a poll which found a few records waits for those that came after them."""
FEW = 500
"""Records that are few: a longer batch does not wait, it is a backlog's."""
FETCHED_AHEAD = 0.001
"""A poll that takes less seconds has waited for nothing: its records were fetched during the batch before."""
COMMIT_EVERY = 0.2
"""Seconds between commits while batch follows batch: positions are in the database already, and a commit takes as long
as a small batch. An idle consumer, a rebalance and a stop commit at once."""
COMMIT_BACKOFF = 2.0
"""Seconds before an idle consumer tries a commit that failed again; a batch brings its own commit at once."""
DRAIN_TIMEOUT = 20.0
"""Seconds a rebalance waits for the batch in hand; must stay below the group's rebalance timeout."""
EVICTION_WAIT = 10.0
"""Seconds to wait for the group's word after another member was seen to own a partition."""
POLL_BACKOFF, LONGEST_POLL_BACKOFF = 1.0, 4.0
"""Seconds before the next poll after one that failed; doubled with every failure in a row."""
CHECK_EVERY = 5.0
"""Seconds between looks at the position rows while nothing comes: a restored database sends no word."""


# A rebalance came between two steps of a poll, or the fetcher was quicker than our first seek: nothing to report.
_ONLY_A_REBALANCE = (IllegalStateError, NoOffsetForPartitionError)


# Retention took what comes next, or the topic is another one: `starting_point` decides where to go on.
_BEGIN_AGAIN = (OffsetOutOfRangeError, TopicChanged, LogCut)


class Unfinished(Exception):  # noqa: N818 - a state, not an error
    """A handler ended without finishing its batch: only a bug of ours does that."""


@dataclass(slots=True, eq=False)
class Held:
    """The rest of a batch in one partition, while somebody else holds its rows (`LevelConsumer.set_aside`)."""

    rest: Batch
    retrying: bool = False
    """As `LevelConsumer.retrying`."""
    owns_batch: bool = True
    """False once the partition begins again: whatever the rest's task still does is of no account."""

    @property
    def partition(self) -> TopicPartition:
        """The partition of every record of it."""
        [partition] = self.rest.expected
        return partition


class PositionKeeper(Protocol):
    """Where positions are kept (`service.stream.positions` keeps them in PostgreSQL)."""

    async def start(
        self,
        committed: Mapping[TopicPartition, int | None],
        log_starts: Mapping[TopicPartition, int],
        read_log_ends: Callable[[], Awaitable[Mapping[TopicPartition, int]]],
        *,
        topic_ids: Mapping[str, str],
        cut_at: Mapping[TopicPartition, int],
    ) -> dict[TopicPartition, Start]:
        """Where every partition of a new assignment begins, and what its position row says then.

        The ends are to be read after the rows: another member may still move a row on, beyond an end read before.
        `cut_at` says where logs ended when they were cut off below the position.
        """

    async def store_idle(self, batch: Batch) -> None:
        """Check the rows of a batch without records; store positions that moved past offsets without records."""


class LevelConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """See the module's docstring. One subscriber uses one consumer, from one task."""

    def __init__(
        self, *topics: str, keeper: PositionKeeper, max_bytes: int, may_read: asyncio.Event, **options: Any
    ) -> None:
        super().__init__(*topics, **options)
        self._may_read = may_read
        self._keeper = keeper
        self._max_bytes = max_bytes
        self._epoch = 0
        self._started_epoch = 0
        self._expected: dict[TopicPartition, int] = {}
        self._applied: dict[TopicPartition, int] = {}
        self._uncommitted: dict[TopicPartition, int] = {}
        self._topic_ids: dict[str, str] = {}
        self._cut_at: dict[TopicPartition, int] = {}
        self._evicted_at: float | None = None
        self._checked_at = 0.0
        self._committed_at = -COMMIT_EVERY
        self._commit_failed_at = -COMMIT_BACKOFF
        self._failures = 0
        self.batch: Batch | None = None
        """The batch in hand: what the last poll delivered, until it is finished or abandoned."""
        self._held: dict[Held, asyncio.Task[None]] = {}
        self._idle = asyncio.Event()
        self._idle.set()
        self.retrying = False
        """True while a fault that passes is being retried: standing still is then no stall."""
        self._problem = ""

    def subscribe(self, topics: Any = (), pattern: Any = None, listener: Any = None) -> None:  # noqa: ARG002 - FastStream's only logs
        """Subscribe with our own rebalance listener."""
        super().subscribe(topics=topics, pattern=pattern, listener=_Rebalance(self))

    @property
    def problem(self) -> str:
        """Why polls fail at present, or which partitions cannot be read, or ''."""
        faults = self._level_fetcher.faults if self._fetcher is not None else {}
        unread = "; ".join(f"{tp.topic}-{tp.partition}: {_words(error)}" for tp, error in sorted(faults.items()))
        return (self._problem or unread)[:500]

    # --- what a subscriber's handler uses

    @property
    def owns_batch(self) -> bool:
        """Whether the partitions of the batch in hand are still this consumer's."""
        return self._epoch == self._started_epoch

    def owned_positions(self) -> dict[TopicPartition, int]:
        """Where each started partition that can be read has got to: the offset after the last applied one.

        A partition that waits for somebody else's lock is not among them: it stands still for a reason.
        """
        if not self.owns_batch:
            return {}
        return {tp: at for tp, at in self._applied.items() if tp not in self._level_fetcher.faults}

    def not_begun(self) -> set[TopicPartition]:
        """Partitions of the last assignment that wait for their beginning, or for the group's next word."""
        waiting: set[TopicPartition] = set() if self.owns_batch else set(self.assignment())
        return waiting

    async def finish(self) -> None:
        """Go on behind the batch in hand, which is in the database; commit to Kafka unless that was a moment ago."""
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
        """Give the batch in hand up; its partitions start again from the database and the group's commit."""
        self.batch = None
        self._idle.set()
        self.begin_again(wait_for_rebalance=wait_for_rebalance)

    def begin_again(self, *, wait_for_rebalance: bool) -> None:
        """Let every partition start again with the next poll."""
        self._started_epoch = -1
        self._evicted_at = time.monotonic() if wait_for_rebalance else None

    async def set_aside(self, rest: Batch, apply: Callable[[Held], Coroutine[Any, Any, None]]) -> None:
        """Read nothing more of a partition until `apply` has brought the rest of the batch in hand into the database.

        The other partitions go on. Wait first where more than a batch is set aside already: it stays in memory.
        """
        while self._held and sum(len(one.rest.records) for one in self._held) + len(rest.records) > MOST_HELD:
            await asyncio.wait(self._held.values(), return_when=asyncio.FIRST_COMPLETED)
        if self.batch is None or not self.owns_batch:
            return  # everything begins again
        held = Held(rest)
        partition = held.partition
        self.pause(partition)
        self._level_fetcher.held.add(partition)
        del self._expected[partition], self._applied[partition]
        self.batch = replace(
            self.batch, positions={tp: at for tp, at in self.batch.positions.items() if tp != partition}
        )
        name = f"{partition.topic}-{partition.partition}"
        log.info("a partition waits for rows that somebody else holds", partition=name, records=len(rest.records))
        task = self._held[held] = asyncio.create_task(apply(held))
        task.add_done_callback(lambda _: self._held.pop(held, None))

    def go_on_behind(self, held: Held) -> None:
        """Read on in a partition whose rest is in the database."""
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
        """End what is applied beside: it is read again. A transaction that is not told in time does no harm (law 3)."""
        tasks = list(self._held.values())
        for held, task in self._held.items():
            held.owns_batch = False
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=END_HELD_TIMEOUT)
        self._held = {}
        if self._fetcher is not None:
            self._level_fetcher.held.clear()

    # --- what FastStream calls

    async def stop(self) -> None:
        """Commit what is applied, and leave the group."""
        await self._end_held()
        await self._commit()
        await super().stop()

    async def end(self) -> None:
        """End what a stop that was cut short has left: first the tasks, which would open connections again."""
        await self._end_held()
        coordinator = self._coordinator
        if coordinator is not None:
            for task in (
                coordinator._coordination_task,  # noqa: SLF001 - aiokafka ends them one after the other
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
        """Wait for the next records, however long it takes; never empty: `batch` has them, and the first is returned.

        FastStream keeps what it gets until the next poll has come back: that would be a second batch in memory.
        """
        await self._may_read.wait()
        while True:
            try:
                records = await self._poll(timeout_ms, max_records)
            except (ConsumerStoppedError, asyncio.CancelledError):
                raise
            except Exception as error:  # noqa: BLE001 - whatever a poll raises, no drained record may be passed
                await self._poll_failed(error)
            else:
                self.retrying, self._problem, self._failures = False, "", 0
                if records:
                    partition, found = next(iter(records.items()))
                    return {partition: found[:1]}

    async def _poll(self, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[ConsumerRecord]]:
        if self.batch is not None:
            self.abandon(wait_for_rebalance=False)
            raise Unfinished("its handler did not finish a batch: it is delivered again")
        self._coordinator.check_errors()
        self._check_readable()
        if self._started_epoch != self._epoch:
            await self._start_partitions()
        epoch = self._epoch
        records = await self._read(timeout_ms, max_records)
        if epoch != self._epoch or not self._expected.keys() >= records.keys():
            self._started_epoch = -1  # of an assignment that has not started yet: it seeks, so nothing is passed
            return {}
        records = self._bounded(records)
        positions = {tp: await self.position(tp) for tp in list(self._expected)}
        if records:
            self._take(records, positions)
        else:
            await self._store_idle(positions)
        return records

    # --- the steps of a poll

    def _check_readable(self) -> None:
        """aiokafka forgets the partitions of a topic that it may not describe, and waits for ever without a word."""
        for topic in sorted(self.subscription() & self._client.cluster.unauthorized_topics):
            raise TopicAuthorizationFailedError(topic)

    async def _read(self, timeout_ms: int, max_records: int | None) -> dict[TopicPartition, list[ConsumerRecord]]:
        """What was fetched ahead during the batch before, and what has come since: it would wait for a batch more."""
        began = time.monotonic()
        records: dict[TopicPartition, list[ConsumerRecord]]
        records = await super().getmany(timeout_ms=timeout_ms, max_records=max_records)
        found, most = sum(map(len, records.values())), min(max_records or FEW, FEW)
        if 0 < found < most and time.monotonic() - began < FETCHED_AHEAD:
            for partition, more in (await super().getmany(timeout_ms=REFRESH_MS, max_records=most - found)).items():
                records.setdefault(partition, []).extend(more)
        return records

    async def _start_partitions(self) -> None:
        """Seek every partition of a new assignment to where it is to begin, and learn its position row."""
        await self._end_held()
        await self._wait_out_eviction()
        self.resume(*self.paused())
        epoch, partitions = self._epoch, self.assignment()
        self._expected, self._applied, self._uncommitted = {}, {}, {}
        if partitions:
            topic_ids = await read_topic_ids(self._client, sorted({tp.topic for tp in partitions}))
            committed = {tp: await self.committed(tp) for tp in partitions}
            log_starts = await self.beginning_offsets(partitions)
            starts = await self._keeper.start(
                committed,
                log_starts,
                lambda: self._log_ends(topic_ids, partitions),
                topic_ids=topic_ids,
                cut_at=self._cut_at,
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
        """Read where the partitions end, and make sure that all offsets since `topic_ids` were read count on them.

        A rebalance may have taken some of them away meanwhile, so the assignment of this moment is not asked.
        """
        ends: dict[TopicPartition, int] = await self.end_offsets(partitions)
        if await read_topic_ids(self._client, sorted(topic_ids)) != topic_ids:
            raise TopicChanged("a topic was deleted and created again a moment ago")
        return ends

    def _begin(self, starts: Mapping[TopicPartition, Start], topic_ids: dict[str, str]) -> None:
        fetcher = self._level_fetcher
        fetcher.topic_ids = self._topic_ids = topic_ids
        fetcher.epochs = {tp: start.epoch for tp, start in starts.items()}
        fetcher.faults, self._cut_at = {}, {}
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
        """After an eviction, let the group say who owns what; where it says nothing, begin again all the same."""
        since, self._evicted_at = self._evicted_at, None
        epoch = self._epoch
        while since is not None and epoch == self._epoch and time.monotonic() - since < EVICTION_WAIT:
            await asyncio.sleep(0.1)

    def _bounded(self, records: dict[TopicPartition, list[ConsumerRecord]]) -> dict[TopicPartition, list[Any]]:
        """Cut a poll at the batch's byte limit (at least one record); what is cut is fetched again."""
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
        # Every row is checked, also those that stay: where one of them went back, all did.
        flat = [record for partition in records.values() for record in partition]
        self.batch = self._batch_of(flat, self._moved(positions))
        self._idle.clear()

    def _batch_of(self, records: list[ConsumerRecord], moved: dict[TopicPartition, int]) -> Batch:
        epochs = {tp: self._level_fetcher.epochs.get(tp, -1) for tp in moved}
        return Batch(records, dict(self._expected), moved, self._topic_ids, epochs)

    def _moved(self, positions: dict[TopicPartition, int]) -> dict[TopicPartition, int]:
        return {tp: at for tp, at in positions.items() if at != self._applied[tp]}

    async def _store_idle(self, positions: dict[TopicPartition, int]) -> None:
        """No batch is in hand: the positions stand after transaction markers, aborted or compacted records."""
        moved = self._moved(positions)
        if moved or time.monotonic() - self._checked_at >= CHECK_EVERY:
            try:
                await self._keeper.store_idle(self._batch_of([], moved))
            except BaseException:
                self._started_epoch = -1  # evicted, or the database went back: begin again
                raise
            self._checked_at = time.monotonic()
            self._expected |= {tp: max(at, self._expected[tp]) for tp, at in moved.items()}
            self._applied |= moved
            self._uncommitted |= moved
        if time.monotonic() - self._commit_failed_at >= COMMIT_BACKOFF:
            await self._commit()

    async def _poll_failed(self, error: Exception) -> None:
        """Nothing that the failed poll drained may be passed: every partition goes back to what is applied."""
        self._rewind()
        if isinstance(error, _BEGIN_AGAIN):
            if isinstance(error, LogCut):
                self._cut_at |= error.ends
            log.info("partitions begin again", reason=f"{type(error).__name__}: {error}")
            self._started_epoch = -1
        elif not isinstance(error, _ONLY_A_REBALANCE):
            self.retrying, self._problem = True, _words(error)
            metrics.RETRIES.labels(cause_of(error)[0]).inc()
            log.warning("poll failed, tried again", error=self._problem)
            self._revive_membership()
            await asyncio.sleep(backoff(self._failures, POLL_BACKOFF, LONGEST_POLL_BACKOFF))
            self._failures += 1

    def _revive_membership(self) -> None:
        """aiokafka leaves the task dead that met an error, and the group then forgets this member for good."""
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
        """Commit what is applied, partition by partition; a failed commit is repeated with the next one."""
        if not self._uncommitted or self._epoch != self._started_epoch:
            return
        offsets = {tp: OffsetAndMetadata(at, "") for tp, at in self._uncommitted.items()}
        try:
            async with asyncio.timeout(COMMIT_TIMEOUT):
                await self.commit(offsets)
        except (KafkaError, TimeoutError) as error:
            self._commit_failed_at = time.monotonic()
            log.warning("commit failed, repeated with the next", error=f"{type(error).__name__}: {error}")
        else:
            self._committed_at = time.monotonic()
            done = {tp: committed.offset for tp, committed in offsets.items()}
            self._uncommitted = {tp: at for tp, at in self._uncommitted.items() if done.get(tp) != at}


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:500]


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]  # as above
    """Marks a new assignment, and lets the batch in hand finish before its partitions are given away."""

    def __init__(self, consumer: LevelConsumer) -> None:
        self._consumer = consumer

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Wait for the batch in hand, bounded; then its handler learns from `owns_batch` that it is too late."""
        await self._consumer._end_held()  # noqa: SLF001 - the other half of one class
        try:
            async with asyncio.timeout(DRAIN_TIMEOUT if not self._consumer.retrying else 0):
                await self._consumer._idle.wait()  # noqa: SLF001 - the other half of one class
        except TimeoutError:
            log.warning("partitions given away with a batch in hand", partitions=len(revoked))
        await self._consumer._end_held()  # noqa: SLF001 - as above; what the batch has left
        await self._consumer._commit()  # noqa: SLF001 - as above
        self._consumer._epoch += 1  # noqa: SLF001 - as above

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Nothing is read of them before the next poll has started them."""
        self._consumer._epoch += 1  # noqa: SLF001 - as above
        names = sorted(f"{tp.topic}-{tp.partition}" for tp in assigned)
        log.info("partitions assigned", partitions=names)
