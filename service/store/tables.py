"""levelsync's own tables, in the schema `levelsync`, and the function that reads the positions.

The migrations create the tables, and `tests/migrations` compares these models with them. The application's tables are
not declared here. `service.store.application` reads them from the database.
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
    Column("next_offset", BigInteger, nullable=False, comment="the next offset to apply"),
    Column(
        "cluster_id",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="the id of the Kafka cluster that the offset belongs to; empty if it is not known",
    ),
    _when("updated_at", comment="when the position was last stored"),
    Column(
        "topic_id",
        Text,
        nullable=False,
        server_default=text("''"),
        comment="the id of the topic that the offset belongs to; empty if the broker has no topic ids",
    ),
    Column(
        "leader_epoch",
        Integer,
        nullable=False,
        server_default=text("-1"),
        comment="the leader epoch of the record before the offset; -1 if it is not known",
    ),
    comment="The position of each partition. The transaction that applies a batch also stores its position.",
)
"""How far each partition has been applied. `next_offset` is the first offset that is not yet applied (laws 3 and 5).

`topic_id` is the id of the topic to which the offset belongs, or '' if the broker has no topic ids. `leader_epoch` is
the epoch in which the record before the offset was written, or -1 if it is not known.
"""

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
    Column(
        "value",
        LargeBinary,
        comment="the record's value, as bytes, or its beginning if the reason is too_large; NULL for a tombstone",
    ),
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
        comment="why the record cannot apply: malformed, invalid, bad_time, unknown_type, "
        "unknown_specialization, unknown_user, level_out_of_range, refused_by_database or too_large",
    ),
    Column("detail", Text, nullable=False, server_default=text("''"), comment="the reason in a sentence"),
    _when("first_seen_at", comment="when the record was first read"),
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
        "replayed_at",
        DateTime(timezone=True),
        comment="when the last replay was sent; NULL without a replay, or when its outcome is known",
    ),
    Column(
        "last_attempt_timestamp",
        BigInteger,
        comment="the timestamp of the last replayed record that failed, in milliseconds since 1970",
    ),
    Column("resolved_by", Text, comment="who last requested a replay or the discard"),
    UniqueConstraint("topic", "partition", "offset", "record_timestamp", "value_digest", name="uq_dead_letters_record"),
    Index("ix_dead_letters_open", "reason", "id", postgresql_where=text("resolved_at IS NULL")),
    Index("ix_dead_letters_resolved", "resolved_at", postgresql_where=text("resolved_at IS NOT NULL")),
    comment="Records that can never apply, stored unchanged with the reason. They may contain personal data.",
)
"""Records that can never be applied, stored whole (law 4). A letter is open until `resolved_at` is set.

`replayed_at` is when a replay that has no outcome yet was sent. `last_attempt_timestamp` is the timestamp of the last
replayed record that failed, in milliseconds.
"""

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
"""One row for each fenced pair. Events that occurred at or before `decided_at` do not raise it (law 2)."""

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
"""Events that are still to be sent to Kafka. The transaction that an event describes writes its row."""

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
"""The rows of the application that a migration removed as duplicates, as JSON."""

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
"""One row for each run (law 7).

`step` is the current step, and `due_at` is when any worker may work on it. `topic_ids` are the ids of the topics that
`end_offsets` were read from. `wait_seconds` is how long the step waits, on the clock of the process that works on it.
`max_lowered` is how many levels a run may lower, or NULL for any number. `step_began_at` is when the step began, and
`seconds_left` the smallest estimate of the time left in it.
"""

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
"""The ranges of a run, with the user ids above `after_user` up to `upto_user`.

`done_phase` is the last phase that is done in the range (1 scan, 2 confirm, 3 heal). `suspects` has one array for each
suspect of the scan. `counts` are replaced, never added to, so that a repeated phase counts once.
"""

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
"""The issues that a run found, up to a limit (law 8).

`status` is confirmed, unconfirmed, changed_meanwhile, healed, failed, or needs_decision for the kinds that no heal can
repair.
"""

schema_info = Table(
    "schema_info",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False, server_default=text("1")),
    Column("revision", Text, nullable=False),
    Column("oldest_release", Text, nullable=False),
    CheckConstraint("id = 1", name="ck_schema_info_one_row"),
)
"""One row with the revision of the schema, and the oldest release that may run on it."""

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
"""The audit log: every write, every refusal and every failed sign-in, with its subject and outcome."""

ended_sessions = Table(
    "ended_sessions",
    metadata,
    Column("token_digest", LargeBinary, primary_key=True),
    Column("ends_at", DateTime(timezone=True), nullable=False),
)
"""Sessions of the page that were signed out. A row is needed until its token expires."""

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
"""One row for each minute, for all processes together.

`events` has numbers by "type outcome". `delays` has numbers by "type bound", where the bound is that of the
histogram's bucket, in seconds. `lag`, `drift` and `dead_letters` are the greatest values that a process measured, or
NULL if none did.
"""


async def applied_positions(
    conn: AsyncConnection, cluster_id: str, topic_ids: Mapping[str, str]
) -> dict[TopicPartition, int]:
    """Return the next offset to apply of every partition that has a position.

    Rows that belong to another Kafka cluster, or to a deleted topic of the same name, are skipped (law 3). A row whose
    cluster id or topic id is not known is not skipped.
    """
    query = select(
        applied_offsets.c.topic, applied_offsets.c.partition, applied_offsets.c.next_offset, applied_offsets.c.topic_id
    ).where(applied_offsets.c.cluster_id.in_(("", cluster_id)))
    return {
        TopicPartition(topic, partition): offset
        for topic, partition, offset, topic_id in await conn.execute(query)
        if not topic_id or topic_ids.get(topic, "") in {"", topic_id}
    }
