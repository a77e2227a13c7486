"""The statements of the appliers beside their one call (`service/store/levels_v1.sql`): dead letters and fences.

Arrays are unnested and joined by key.
"""

from __future__ import annotations

from sqlalchemy import text

READ_FENCES = text("""
    SELECT k.user_id, k.specialization, f.decided_at
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
     CROSS JOIN LATERAL (
           SELECT f.decided_at FROM levelsync.fences f
            WHERE f.user_id = k.user_id AND f.folded = upper(k.specialization COLLATE "C")
            ORDER BY f.decided_at DESC LIMIT 1) f
""")
"""Read when pairs were last lowered, under any spelling of the name."""

ADD_DEAD_LETTERS = text("""
    INSERT INTO levelsync.dead_letters
           (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
    SELECT v.topic, v.partition, v."offset", v.record_timestamp, v.key, v.value, v.headers, v.reason, v.detail
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                  CAST(:timestamps AS bigint[]), CAST(:keys AS bytea[]), CAST(:values AS bytea[]),
                  CAST(:headers AS jsonb[]), CAST(:reasons AS text[]), CAST(:details AS text[]))
           AS v (topic, partition, "offset", record_timestamp, key, value, headers, reason, detail)
        ON CONFLICT (topic, partition, "offset", record_timestamp, value_digest) DO NOTHING
""")
"""Keep records whole; one that is read again is the same letter (law 3)."""

FIND_DEAD_LETTERS = text("""
    SELECT v.number
      FROM unnest(CAST(:numbers AS int[]), CAST(:topics AS text[]), CAST(:partitions AS int[]),
                  CAST(:offsets AS bigint[]), CAST(:timestamps AS bigint[]), CAST(:digests AS text[]))
           AS v (number, topic, partition, "offset", record_timestamp, value_digest)
      JOIN levelsync.dead_letters d
        ON d.topic = v.topic AND d.partition = v.partition AND d."offset" = v."offset"
       AND d.record_timestamp = v.record_timestamp AND d.value_digest = v.value_digest
""")
"""Which records are dead letters already."""

FIND_OPEN_LETTERS = text("""
    SELECT d.id, d.topic, d.partition, d."offset", d.record_timestamp, d.value_digest
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:first AS bigint[]),
                  CAST(:last AS bigint[])) AS k (topic, partition, first, last)
      JOIN levelsync.dead_letters d ON d.topic = k.topic AND d.partition = k.partition
     WHERE d."offset" BETWEEN k.first AND k.last AND d.resolved_at IS NULL
""")
"""The open letters of the records between offsets."""

LOCK_REPLAYED = text("""
    SELECT v.number, d.id, d.headers, d.resolved_at IS NULL AS is_open, d.resolution, d.last_attempt_timestamp
      FROM unnest(CAST(:numbers AS int[]), CAST(:ids AS bigint[]), CAST(:topics AS text[]), CAST(:keys AS bytea[]),
                  CAST(:digests AS text[])) AS v (number, id, topic, key, digest)
      JOIN levelsync.dead_letters d ON d.id = v.id
     WHERE d.topic = v.topic AND d.key IS NOT DISTINCT FROM v.key AND d.value_digest = v.digest
     ORDER BY d.id, v.number
       FOR NO KEY UPDATE OF d
""")
"""Lock the letters that records say to be replays of, where topic, key and value agree."""

CLOSE_REPLAYED = text("""
    UPDATE levelsync.dead_letters
       SET resolved_at = clock_timestamp(), resolution = 'replayed', replayed_at = NULL
     WHERE id = ANY(CAST(:ids AS bigint[]))
""")
"""Close letters whose replay did not fail."""

RAISE_REPLAYED = text("""
    UPDATE levelsync.dead_letters AS d
       SET attempts = d.attempts + v.times, last_attempt_timestamp = v.timestamp, reason = v.reason, detail = v.detail,
           replayed_at = NULL
      FROM unnest(CAST(:ids AS bigint[]), CAST(:times AS int[]), CAST(:timestamps AS bigint[]),
                  CAST(:reasons AS text[]), CAST(:details AS text[])) AS v (id, times, timestamp, reason, detail)
     WHERE d.id = v.id
""")
"""Count replays that failed again, with the newest reason."""
