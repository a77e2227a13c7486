"""The statements that send letters again and close them; the rest of the package selects with SQLAlchemy's Core."""

from __future__ import annotations

from sqlalchemy import text

from service.apply.quick import FIRST_TIMESTAMP_HEADER, LETTER_HEADER

SEND_AGAIN = text(f"""
    INSERT INTO levelsync.outbox (topic, key, value, headers)
    SELECT d.topic, d.key, d.value,
           (SELECT coalesce(jsonb_agg(h.header ORDER BY h.number), '[]')
              FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, number)
             WHERE h.header ->> 'key' IS NULL
                OR h.header ->> 'key' NOT IN ('{FIRST_TIMESTAMP_HEADER}', '{LETTER_HEADER}'))
           || jsonb_build_array(
                jsonb_build_object('key', '{FIRST_TIMESTAMP_HEADER}', 'value',
                                   least(d.record_timestamp, earlier.timestamp)::text),
                jsonb_build_object('key', '{LETTER_HEADER}', 'value', d.id::text))
      FROM levelsync.dead_letters d
      LEFT JOIN LATERAL (
           SELECT CASE WHEN h.header ->> 'value' ~ '^[0-9]{{1,15}}$' THEN nullif((h.header ->> 'value')::bigint, 0) END
             FROM jsonb_array_elements(d.headers) WITH ORDINALITY AS h (header, number)
            WHERE h.header ->> 'key' = '{FIRST_TIMESTAMP_HEADER}'
            ORDER BY h.number LIMIT 1) AS earlier (timestamp) ON true
     WHERE d.id = ANY(CAST(:ids AS bigint[]))
     ORDER BY d.id
""")
"""Put records into the outbox as they were, with two headers more; those of an earlier replay are replaced. A record
that had a first timestamp keeps the older of the two, as the appliers read it (law 2)."""

MARK_SENT = text("""
    UPDATE levelsync.dead_letters SET replayed_at = clock_timestamp(), resolved_by = :by
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")

CLOSE_DISCARDED = text("""
    UPDATE levelsync.dead_letters
       SET resolved_at = clock_timestamp(), resolution = 'discarded', resolved_by = :by, replayed_at = NULL
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")

FOLLOW = text("""
    SELECT d.id, d.resolved_at IS NOT NULL AS resolved, d.replayed_at IS NOT NULL AS on_its_way
      FROM levelsync.dead_letters d WHERE d.id = ANY(CAST(:ids AS bigint[]))
""")
"""What became of letters that were sent."""
