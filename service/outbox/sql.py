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
