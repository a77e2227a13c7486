"""Tables of levelsync

A test compares the tables with `service/store/tables.py`. `unique_progress_constraint` creates `removed_rows`, because
it is the first revision that needs it.
"""  # noqa: D400, D415 - alembic logs the title as it is

from alembic import op
from sqlalchemy import text

from service.store import revisions

revision = "levelsync_schema"
down_revision = "fix_internship_levels"
branch_labels = None
depends_on = None

DDL = (
    """
    CREATE TABLE IF NOT EXISTS levelsync.applied_offsets (
        topic text,
        partition integer,
        next_offset bigint NOT NULL,
        cluster_id text NOT NULL DEFAULT '',
        updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        PRIMARY KEY (topic, partition)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS levelsync.dead_letters (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        partition integer NOT NULL,
        "offset" bigint NOT NULL,
        record_timestamp bigint NOT NULL,
        key bytea,
        value bytea,
        value_digest text NOT NULL GENERATED ALWAYS AS (coalesce(encode(sha256(value), 'hex'), '')) STORED,
        headers jsonb NOT NULL DEFAULT '[]',
        reason text NOT NULL,
        detail text NOT NULL DEFAULT '',
        first_seen_at timestamptz NOT NULL DEFAULT clock_timestamp(),
        attempts integer NOT NULL DEFAULT 1,
        resolved_at timestamptz,
        resolution text,
        CONSTRAINT uq_dead_letters_record UNIQUE (topic, partition, "offset", record_timestamp, value_digest)
    )
    """,
    "COMMENT ON COLUMN levelsync.dead_letters.record_timestamp IS 'milliseconds since 1970, as Kafka has it'",
    """
    CREATE INDEX IF NOT EXISTS ix_dead_letters_open ON levelsync.dead_letters (reason, id) WHERE resolved_at IS NULL
    """,
    """
    CREATE TABLE IF NOT EXISTS levelsync.fences (
        user_id integer,
        specialization text,
        decided_at timestamptz NOT NULL,
        level integer NOT NULL,
        decided_by text NOT NULL DEFAULT '',
        PRIMARY KEY (user_id, specialization)
    )
    """,
    """
    CREATE TABLE IF NOT EXISTS levelsync.outbox (
        id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
        topic text NOT NULL,
        key bytea,
        value bytea NOT NULL,
        headers jsonb NOT NULL DEFAULT '[]',
        created_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
    """,
)


def upgrade() -> None:
    """Create the tables that do not exist yet."""
    conn = op.get_bind()
    revisions.stop_where_parts_are_missing(conn)
    for statement in DDL:
        conn.execute(text(statement))


def downgrade() -> None:
    """Drop the tables, which belong to levelsync."""
    for table in ("outbox", "fences", "dead_letters", "applied_offsets"):
        op.get_bind().execute(text(f"DROP TABLE IF EXISTS levelsync.{table}"))
