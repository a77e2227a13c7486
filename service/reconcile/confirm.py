"""Confirm suspects (law 5).

The appliers have reached the ends of the topics, and both rows have, under the lock, the levels that the scan saw.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Protocol

from aiokafka.errors import KafkaError
from sqlalchemy import TextClause
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection

from service.faults import read_fault
from service.reconcile import sql
from service.reconcile.runs import ReconcileIssue, add_issues
from service.reconcile.values import Phase, Range, Suspect, count_by_label
from service.settings import Settings
from service.stream.lag import EndOffsets
from service.stream.positions import differ


@dataclass(frozen=True, slots=True)
class Ends:
    """The first and the end offset of every partition (``topic-partition``) of both topics at one moment."""

    cluster_id: str
    starts: Mapping[str, int]
    ends: Mapping[str, int]
    topic_ids: Mapping[str, str] = field(default_factory=dict)
    """The id of each topic. It is '' or absent when Kafka reports none."""


class Topics(Protocol):
    """A source of the topics' end offsets (`KafkaTopics` reads them from Kafka)."""

    async def read(self) -> Ends:
        """Return the high watermarks, from fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """


async def read_applied(conn: AsyncConnection, now: Ends) -> dict[str, int]:
    """Read the position rows that belong to this cluster and to these topics."""
    rows = await conn.execute(sql.APPLIED_OFFSETS)
    return {
        f"{r.topic}-{r.partition}": r.next_offset
        for r in rows
        if r.cluster_id in {"", now.cluster_id} and not differ(r.topic_id, now.topic_ids.get(r.topic, ""))
    }


def reached(goal: Mapping[str, int], now: Ends, applied: Mapping[str, int]) -> bool:
    """Return whether every partition is applied up to `goal`.

    A partition without records counts as applied. A position beyond the current end belongs to an earlier topic of the
    same name. It does not count until a consumer has started the new topic.
    """
    return all(
        now.starts.get(partition, 0) >= end or end <= applied.get(partition, 0) <= now.ends.get(partition, 0)
        for partition, end in goal.items()
    )


class KafkaTopics:
    """Reads `Topics` from Kafka. It reuses its clients between reads, and replaces them after a fault."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._offsets: EndOffsets | None = None

    async def __aenter__(self) -> KafkaTopics:
        """Connect, so that no run waits for it. If Kafka is away, the first read connects."""
        with contextlib.suppress(KafkaError, OSError):
            await self.read()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        offsets, self._offsets = self._offsets, None
        if offsets is not None:
            await offsets.__aexit__(kind, error, trace)

    async def read(self) -> Ends:
        """Return the high watermarks and the first offsets, from fresh metadata.

        Raises:
            KafkaError: Kafka does not answer.
        """
        try:
            if self._offsets is None:
                self._offsets = await EndOffsets(self._settings).__aenter__()
            return await _read(self._offsets)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise


async def _read(offsets: EndOffsets) -> Ends:
    """Read offsets between two equal answers about the topics' ids, so that they belong to these topics."""
    while True:
        cluster = await offsets.read_cluster()
        topic_ids = await offsets.read_topic_ids(cluster)
        ends = await offsets.read_of(cluster)
        starts = await offsets.read_starts(list(ends))
        if await offsets.read_topic_ids(cluster) == topic_ids:
            return Ends(
                cluster.id,
                {f"{tp.topic}-{tp.partition}": at for tp, at in starts.items()},
                {f"{tp.topic}-{tp.partition}": at for tp, at in ends.items()},
                topic_ids,
            )


Levels = Mapping[Suspect, int | None]


async def confirm_range(conn: AsyncConnection, part: Range, room: int) -> None:
    """Confirm the suspects of a range whose row the caller has locked. Store up to `room` issues."""
    suspects = part.suspects
    statuses = await _statuses(conn, suspects)
    await add_issues(conn, part.run.id, [ReconcileIssue(s, statuses[s]) for s in suspects][:room])
    confirmed = [s for s in suspects if statuses[s] == "confirmed"]
    counts: dict[str, Any] = dict(Counter(_count_name(s, statuses[s]) for s in suspects))
    counts["lowered"] = sum(s.is_lowered(part.run.direction) for s in confirmed)
    counts["found_by"] = count_by_label(s for s in suspects if statuses[s] != "changed_meanwhile")
    await conn.execute(
        sql.RANGE_CONFIRMED,
        {
            "id": part.run.id,
            "chunk": part.chunk,
            "phase": Phase.CONFIRM if confirmed else Phase.HEAL,
            "suspects": json.dumps(confirmed),
            "suspect_count": len(confirmed),
            "counts": json.dumps(counts),
        },
    )


async def _statuses(conn: AsyncConnection, suspects: Sequence[Suspect]) -> dict[Suspect, str]:
    """Compare pairs under their locks. Held pairs, which another transaction has locked, come last and one at a time.

    After the first wait that takes too long, this does not wait for other held pairs: they are unconfirmed too.
    """
    ordered = sorted(suspects, key=lambda s: (s.user_id, s.specialization))
    statuses = await _compare(conn, ordered, wait=False)
    wait = True
    for suspect in [s for s in ordered if s not in statuses]:
        try:
            found = await _compare(conn, [suspect], wait=wait)
        except DBAPIError as error:
            if not read_fault(error).waits:
                raise
            found, wait = {}, False
        statuses[suspect] = found.get(suspect, "unconfirmed")
    return statuses


async def _compare(conn: AsyncConnection, suspects: Sequence[Suspect], *, wait: bool) -> dict[Suspect, str]:
    """Lock and read progress first, then licenses, in key order (law 6). Without `wait`, leave out held pairs.

    The locks end with the comparison, so that other transactions do not wait for a whole range.
    """
    lock: Literal["wait", "skip"] = "wait" if wait else "skip"
    savepoint = await conn.begin_nested()
    try:
        progress = await _levels(conn, sql.progress_of_pairs(lock), suspects)
        licenses = await _levels(conn, sql.licenses_of_pairs(lock), suspects)
        held = set() if wait else await _held(conn, suspects, progress, licenses)
    finally:
        await savepoint.rollback()
    return {s: _status(s, progress, licenses) for s in suspects if s not in held}


async def _held(conn: AsyncConnection, suspects: Sequence[Suspect], progress: Levels, licenses: Levels) -> set[Suspect]:
    """Return the suspects with a skipped row. A read without a lock distinguishes a skipped row from a missing one."""
    without_progress = [s for s in suspects if s not in progress]
    without_license = [s for s in suspects if s not in licenses]
    skipped = {
        **await _levels(conn, sql.progress_of_pairs("none"), without_progress),
        **await _levels(conn, sql.licenses_of_pairs("none"), without_license),
    }
    return set(skipped)


async def _levels(conn: AsyncConnection, statement: TextClause, suspects: Sequence[Suspect]) -> Levels:
    """Return the levels of the rows that the statement finds."""
    if not suspects:
        return {}
    keys = {"users": [s.user_id for s in suspects], "specializations": [s.specialization for s in suspects]}
    levels, present = (await conn.execute(statement, keys)).one()
    return {s: level for s, level, exists in zip(suspects, levels, present, strict=True) if exists}


def _status(suspect: Suspect, progress: Levels, licenses: Levels) -> str:
    if (progress.get(suspect), licenses.get(suspect)) != (suspect.progress_level, suspect.license_level):
        return "changed_meanwhile"
    return "confirmed" if suspect.healable else "needs_decision"


def _count_name(suspect: Suspect, status: str) -> str:
    """Return the count for a suspect: its kind if it is confirmed, else its status."""
    return suspect.kind if status == "confirmed" else status
