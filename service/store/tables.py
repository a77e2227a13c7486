"""levelsync's own tables, in the schema `levelsync`, and the reader of the positions.

The migrations create them; `tests/migrations` holds these models equal to the migrations. The application's tables
are not declared here: what they look like is read from the database (`service.store.application`).
"""

from __future__ import annotations

from collections.abc import Mapping

from aiokafka import TopicPartition
from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Float,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    select,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB, UUID
from sqlalchemy.ext.asyncio import AsyncConnection

SCHEMA = "levelsync"
metadata = MetaData(schema=SCHEMA)
_NOW = text("clock_timestamp()")


def _when(name: str = "created_at", comment: str | None = None) -> Column[object]:
    return Column(name, DateTime(timezone=True), nullable=False, server_default=_NOW, comment=comment)


applied_offsets = Table(
    "applied_offsets",
    metadata,
    Column("topic", Text, primary_key=True, comment="the topic"),
    Column("partition", Integer, primary_key=True, autoincrement=False, comment="the partition"),
    Column("next_offset", BigInteger, nullable=False, comment="the first offset that is not applied yet"),
    Column(
        "cluster_id",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="the Kafka cluster that the offset counts on; empty where it is not known",
    ),
    _when("updated_at", comment="when the position moved last"),
    Column(
        "topic_id",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="the id of the topic that the offset counts on; empty where the broker gives none",
    ),
    Column(
        "leader_epoch",
        Integer,
        nullable=False,
        server_default=text("-1"),
        comment="the leader epoch of the record before the offset; -1 where it is not known",
    ),
    comment="How far each partition has been applied, stored in the transaction of the effects.",
)
"""How far each partition has been applied: `next_offset` is the first offset not yet applied (laws 3 and 5).

`topic_id` is the id of the topic that the offset counts on ('' where the broker gives none), and `leader_epoch` the
epoch in which the record before the offset was written (-1 where that is not known)."""

dead_letters = Table(
    "dead_letters",
    metadata,
    Column(
        "id",
        BigInteger,
        Identity(always=True),
        primary_key=True,
        comment="the letter's id, as levelsync dead-letters shows it",
    ),
    Column("topic", Text, nullable=False, comment="the record's topic"),
    Column("partition", Integer, nullable=False, comment="the record's partition"),
    Column("offset", BigInteger, nullable=False, comment="the record's offset"),
    Column("record_timestamp", BigInteger, nullable=False, comment="milliseconds since 1970, as Kafka has it"),
    Column("key", LargeBinary, comment="the record's key, as bytes"),
    Column("value", LargeBinary, comment="the record's value, as bytes; NULL for a tombstone"),
    Column(
        "value_digest",
        Text,
        Computed("coalesce(encode(sha256(value), 'hex'), '')", persisted=True),
        nullable=False,
        comment="SHA-256 of the value in hexadecimal; empty for a tombstone",
    ),
    Column(
        "headers",
        JSONB,
        nullable=False,
        server_default=text("'[]'::jsonb"),
        comment="the record's headers, in their order",
    ),
    Column(
        "reason",
        Text,
        nullable=False,
        comment="why the record was not applied: malformed, invalid, bad_time, unknown_type, "
        "unknown_specialization, unknown_user, level_out_of_range, refused_by_database or too_large",
    ),
    Column("detail", Text, nullable=False, server_default=text("''"), comment="the reason in a sentence"),
    _when("first_seen_at", comment="when the record was read first"),
    Column(
        "attempts",
        Integer,
        nullable=False,
        server_default=text("1"),
        comment="how often the record was tried: once, and once for each replay that failed",
    ),
    Column("resolved_at", DateTime(timezone=True), comment="when the letter was closed; NULL while it is open"),
    Column("resolution", Text, comment="how the letter was closed: replayed or discarded"),
    Column(
        "replayed_at", DateTime(timezone=True), comment="when the replay that is on its way was sent; NULL without one"
    ),
    Column(
        "last_attempt_timestamp",
        BigInteger,
        comment="timestamp of the last replayed record that failed, in milliseconds since 1970",
    ),
    Column("resolved_by", Text, comment="who closed the letter"),
    UniqueConstraint("topic", "partition", "offset", "record_timestamp", "value_digest", name="uq_dead_letters_record"),
    Index("ix_dead_letters_open", "reason", "id", postgresql_where=text("resolved_at IS NULL")),
    Index("ix_dead_letters_resolved", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    comment="Records that could not be applied, kept as they were published. They may hold personal data.",
)
"""Records that can never apply, kept whole (law 4). Open until `resolved_at` is set. `replayed_at`: a replay is on its
way since then; `last_attempt_timestamp`: of the last replayed record that failed, in milliseconds."""

fences = Table(
    "fences",
    metadata,
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("specialization", Text, primary_key=True),
    Column("decided_at", DateTime(timezone=True), nullable=False),
    Column("level", Integer, nullable=False),
    Column("decided_by", Text, nullable=False, server_default=text("''")),
    Column("folded", Text, Computed('upper(specialization COLLATE "C")', persisted=True), nullable=False),
    Index("ix_fences_folded", "user_id", "folded"),
)
"""One row for each pair that a decision lowered: events that occurred at or before `decided_at` no longer raise it."""

outbox = Table(
    "outbox",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("topic", Text, nullable=False),
    Column("key", LargeBinary),
    Column("value", LargeBinary),
    Column("headers", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    _when(),
)
"""Events on their way to Kafka, written in the transaction that they describe."""

removed_rows = Table(
    "removed_rows",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("table_name", Text, nullable=False),
    Column("row_id", BigInteger, nullable=False),
    Column("row", JSONB, nullable=False),
    Column("revision", Text, nullable=False),
    _when("removed_at"),
)
"""Rows of the application that a migration removed as duplicates, as JSON."""

reconcile_runs = Table(
    "reconcile_runs",
    metadata,
    Column("id", UUID(as_uuid=True), primary_key=True),
    Column("status", Text, nullable=False, server_default=text("'planning'")),
    Column("phase", Integer, nullable=False, server_default=text("0")),
    Column("step", Text, nullable=False, server_default=text("'plan'")),
    Column("direction", Text, nullable=False),
    Column("dry_run", Boolean, nullable=False),
    Column("force", Boolean, nullable=False),
    Column("specialization", Text),
    Column("user_id", BigInteger),
    Column("requested_by", Text),
    _when("requested_at"),
    Column("finished_at", DateTime(timezone=True)),
    Column("due_at", DateTime(timezone=True)),
    Column("give_up_at", DateTime(timezone=True)),
    Column("end_offsets", JSONB),
    Column("would_stop", Boolean, nullable=False, server_default=text("false")),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("detail", Text, nullable=False, server_default=text("''")),
    Column("topic_ids", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("wait_seconds", Float, nullable=False, server_default=text("0")),
    Column("max_lowered", BigInteger),
    Column("step_began_at", DateTime(timezone=True)),
    Column("seconds_left", Float),
    Index("ix_reconcile_runs_requested", "requested_at"),
    Index("ix_reconcile_runs_due", "due_at", postgresql_where=text("finished_at IS NULL")),
)
"""One row a run (law 7). `step` is what it waits for; `due_at`: when any worker may take the next step. `topic_ids` are
the ids of the topics that `end_offsets` were taken from; `wait_seconds`: how long the step waits, by the clock of
whoever takes it. `max_lowered`: how many levels may fall before the run stops; NULL: any number.
`step_began_at`, `seconds_left`: since when the run is at its step, and the least time left that was known there."""

_RUN = "levelsync.reconcile_runs.id"

reconcile_ranges = Table(
    "reconcile_ranges",
    metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(_RUN, ondelete="CASCADE"), primary_key=True),
    Column("chunk", Integer, primary_key=True, autoincrement=False),
    Column("after_user", BigInteger, nullable=False),
    Column("upto_user", BigInteger, nullable=False),
    Column("done_phase", Integer, nullable=False, server_default=text("0")),
    _when("sent_at"),
    Column("suspects", JSONB, nullable=False, server_default=text("'[]'::jsonb")),
    Column("suspect_count", Integer, nullable=False, server_default=text("0")),
    Column("counts", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
)
"""The key ranges of a run: user ids above `after_user` up to `upto_user`. `done_phase` is the last phase done here (1
scanned, 2 confirmed, 3 healed), `suspects` what the scan saw, one array a pair; `counts` are set, never added."""

drift_issues = Table(
    "drift_issues",
    metadata,
    Column("run_id", UUID(as_uuid=True), ForeignKey(_RUN, ondelete="CASCADE"), primary_key=True),
    Column("user_id", BigInteger, primary_key=True, autoincrement=False),
    Column("specialization", Text, primary_key=True),
    Column("kind", Text, nullable=False),
    Column("progress_level", Integer),
    Column("license_level", Integer),
    Column("status", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=text("''")),
    _when("seen_at"),
)
"""What a run found, up to its limit (law 8). `status`: confirmed, unconfirmed, changed_meanwhile, healed, failed;
needs_decision for the kinds that no write can repair."""

schema_info = Table(
    "schema_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("revision", Text, nullable=False),
    Column("oldest_release", Text, nullable=False),
    CheckConstraint("id = 1", name="ck_schema_info_one_row"),
)
"""One row: the revision at which the schema stands, and the oldest release that may run on it."""

admin_actions = Table(
    "admin_actions",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _when("at"),
    Column("subject", Text, nullable=False),
    Column("role", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("arguments", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("outcome", Text, nullable=False),
    Column("detail", Text, nullable=False, server_default=text("''")),
    Column("request_id", Text, nullable=False, server_default=text("''")),
    Column("client_address", Text, nullable=False, server_default=text("''")),
    Column("times", Integer, nullable=False, server_default=text("1")),
    Index("ix_admin_actions_at", "at"),
)
"""Who asked for what, and with which outcome: every write, every refusal, and failed sign-ins."""

ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("token_digest", LargeBinary, primary_key=True),
    Column("ends_at", DateTime(timezone=True), nullable=False),
)
"""Sessions of the page that were signed out, until their token expires."""

minute_samples = Table(
    "minute_samples",
    metadata,
    Column("minute", DateTime(timezone=True), primary_key=True),
    Column("events", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("delays", JSONB, nullable=False, server_default=text("'{}'::jsonb")),
    Column("lag", BigInteger),
    Column("drift", BigInteger),
    Column("dead_letters", BigInteger),
)
"""One row a minute, of all processes together. `events` counts by "type outcome", `delays` by "type bound": the bound
of the histogram's bucket in seconds. `lag`, `drift` and `dead_letters` are the greatest that a process measured; NULL
where none did."""


async def applied_positions(
    conn: AsyncConnection, cluster_id: str, topic_ids: Mapping[str, str]
) -> dict[TopicPartition, int]:
    """Read the next offset to apply of every partition that was ever applied.

    Rows that count on another Kafka cluster, or on a deleted topic of the same name, say nothing about these topics
    (law 3) and are left out. An id that is not known ('' or absent) leaves no row out.
    """
    query = select(
        applied_offsets.c.topic, applied_offsets.c.partition, applied_offsets.c.next_offset, applied_offsets.c.topic_id
    ).where(applied_offsets.c.cluster_id.in_(("", cluster_id)))
    return {
        TopicPartition(topic, partition): offset
        for topic, partition, offset, topic_id in await conn.execute(query)
        if not topic_id or topic_ids.get(topic, "") in {"", topic_id}
    }
