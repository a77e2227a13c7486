"""Every statement of the outbox."""

from __future__ import annotations

from sqlalchemy import text

CHANNEL = "levelsync_outbox"

PUT = text("""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT e.topic, e.key, e.value, CAST(e.headers AS jsonb)
      FROM unnest(CAST(:topics AS text[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]), CAST(:headers AS text[]))
           WITH ORDINALITY AS e (topic, key, value, headers, number)
     ORDER BY e.number
""")
"""Add events; PostgreSQL gives the ids after the sort, so their order is that of the arrays."""

NOTIFY = text(f"SELECT pg_notify('{CHANNEL}', '')")
"""Tell the relay, at commit. Once a call: commits that notify wait for each other."""

TRY_LOCK = text("SELECT pg_try_advisory_lock(hashtextextended('levelsync outbox relay', 0))")
"""True for the one session of the database that has the lock, until the session ends."""

NOTICE_A_VANISHED_CLIENT = text("""
    SELECT set_config('tcp_keepalives_idle', '3', false), set_config('tcp_keepalives_interval', '2', false),
           set_config('tcp_keepalives_count', '3', false)
""")
"""Let PostgreSQL end this session within 9 s of its machine's disappearance: by default that takes two hours."""

READ = text("""
    SELECT b.id, b.topic, b.key, b.value, b.headers
      FROM (SELECT s.*, sum(s.bytes) OVER (ORDER BY s.id) - s.bytes AS bytes_before
              FROM (SELECT o.*, coalesce(octet_length(o.key), 0) + coalesce(octet_length(o.value), 0)
                                + octet_length(CAST(o.headers AS text)) AS bytes
                      FROM levelsync.outbox o
                     WHERE o.id <> ALL(CAST(:without_rows AS bigint[]))
                       AND o.topic <> ALL(CAST(:without_topics AS text[]))
                     ORDER BY o.id LIMIT :rows) s) b
     WHERE b.bytes_before < :bytes
     ORDER BY b.id
""")
"""The oldest events: at most so many, and no more once they have reached `bytes`."""

DELETE = text("DELETE FROM levelsync.outbox WHERE id = ANY(CAST(:ids AS bigint[]))")
"""Remove exactly these: a lower id may have been committed since they were read."""
