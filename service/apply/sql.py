"""Every statement of the appliers; syncs and heals write through the same. The rest of `service.apply` holds no SQL.

Arrays are unnested and joined by key. Statements are kept apart (lock, then fences, then write) because under READ
COMMITTED a statement's snapshot is older than the lock it waits for, and because one large statement falls to a
fraction of its speed once PostgreSQL takes a generic plan for it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import TextClause, text

from service.names import folded

LOCK_LICENSES = text(f"""
    SELECT l.id, k.user_id, k.specialization, l.level, l.exact
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
     CROSS JOIN LATERAL (
           SELECT f.id, f.current_level AS level, f.specialization_type = k.specialization AS exact
             FROM user_licenses f
            WHERE f.user_id = k.user_id AND {folded("f.specialization_type")} = {folded("k.specialization")}
            ORDER BY f.specialization_type, f.id
              FOR NO KEY UPDATE) l
""")
"""Lock the licenses of pairs, in the order of the arrays, which are sorted. Matched without case: a license written in
another case is the pair's. One look-up a pair, because without statistics a join reads the whole table."""

LOCK_PROGRESS = text("""
    SELECT p.id, k.user_id, k.specialization, p.current_level AS level, true AS exact
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
      JOIN specialization_progress p
        ON p.student_id = k.user_id AND p.specialization_id = k.specialization
     ORDER BY p.student_id, p.specialization_id
       FOR NO KEY UPDATE OF p
""")
"""Lock the progress rows of pairs in key order."""

READ_FENCES = text("""
    SELECT f.user_id, f.specialization, f.decided_at
      FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
      JOIN levelsync.fences f ON f.user_id = k.user_id AND f.specialization = k.specialization
""")
"""Read the fences of pairs: always in a later statement than the one that locks (law 6)."""

LOCK_USERS = text("SELECT id FROM users WHERE id = ANY(CAST(:users AS bigint[])) ORDER BY id FOR KEY SHARE")
"""Which users exist; the lock is the one their new rows' foreign keys take anyway."""

KEEP_PLANS = text("SELECT set_config('plan_cache_mode', 'auto', true), set_config('enable_seqscan', 'off', true)")
"""Until the transaction ends: one plan for all rows of a write. As our connections are set (`service.database.engine`),
PostgreSQL plans the look-up of a foreign key anew for every row. The plan outlives the transaction, and the table may
grow: it must be one with an index."""

RAISE_LICENSES = text("""
    UPDATE user_licenses AS l
       SET current_level = v.level, max_achieved_level = greatest(l.max_achieved_level, v.level),
           last_advanced_at = v.advanced_at, updated_at = clock_timestamp()
      FROM unnest(CAST(:ids AS bigint[]), CAST(:levels AS int[]), CAST(:times AS timestamptz[]))
           AS v (id, level, advanced_at)
     WHERE l.id = v.id
""")
"""Write the levels of licenses that are locked already."""

RAISE_PROGRESS = text("""
    UPDATE specialization_progress AS p
       SET current_level = v.level, last_activity = v.advanced_at, updated_at = clock_timestamp()
      FROM unnest(CAST(:ids AS bigint[]), CAST(:levels AS int[]), CAST(:times AS timestamptz[]))
           AS v (id, level, advanced_at)
     WHERE p.id = v.id
""")
"""Write the levels of progress rows that are locked already; XP and the counts stay."""

ADD_HISTORY = text("""
    INSERT INTO license_progressions (user_license_id, from_level, to_level, advancement_reason, advanced_at)
    SELECT * FROM unnest(CAST(:ids AS bigint[]), CAST(:froms AS int[]), CAST(:tos AS int[]),
                         CAST(:reasons AS text[]), CAST(:times AS timestamptz[]))
""")
"""One row for every rise of a license (law 1)."""

ADD_HISTORY_BY = text("""
    INSERT INTO license_progressions
           (user_license_id, from_level, to_level, advancement_reason, advanced_at, advanced_by)
    SELECT v.*, CAST(:advanced_by AS bigint)
      FROM unnest(CAST(:ids AS bigint[]), CAST(:froms AS int[]), CAST(:tos AS int[]),
                  CAST(:reasons AS text[]), CAST(:times AS timestamptz[])) AS v
""")
"""The same, with the user who decided it (R15)."""

_NEW_ROWS = """
    FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[]), CAST(:levels AS int[]),
                CAST(:created AS timestamptz[]), CAST(:advanced AS timestamptz[]))
         AS v (user_id, specialization, level, created_at, advanced_at)
"""


def _extra(table: str, columns: Iterable[str]) -> tuple[str, str, str]:
    """Columns of the application that only its own defaults can fill (R9b): names, values, where they come from.

    jsonb_populate_record lets PostgreSQL itself turn each JSON value into its column's type.
    """
    quoted = ['"' + name.replace('"', '""') + '"' for name in columns]
    if not quoted:
        return "", "", ""
    names = "".join(f", {name}" for name in quoted)
    values = "".join(f", d.{name}" for name in quoted)
    source = f" CROSS JOIN jsonb_populate_record(NULL::{table}, CAST(:defaults AS jsonb)) AS d"
    return names, values, source


def create_licenses(extra_columns: Iterable[str]) -> TextClause:
    """Insert missing licenses, returning those made; a conflict makes none and means: decide again (law 1)."""
    names, values, source = _extra("user_licenses", extra_columns)
    return text(f"""
        INSERT INTO user_licenses (user_id, specialization_type, current_level, max_achieved_level,
                                          started_at, last_advanced_at, created_at, updated_at{names})
        SELECT v.user_id, v.specialization, v.level, v.level,
               v.created_at, v.advanced_at, clock_timestamp(), clock_timestamp(){values}
        {_NEW_ROWS}{source}
        ON CONFLICT (user_id, specialization_type) DO NOTHING
        RETURNING id, user_id, specialization_type AS specialization
    """)


def create_progress(extra_columns: Iterable[str]) -> TextClause:
    """Insert missing progress rows with the application's own beginnings (no XP, nothing completed)."""
    names, values, source = _extra("specialization_progress", extra_columns)
    return text(f"""
        INSERT INTO specialization_progress (student_id, specialization_id, current_level, total_xp,
            completed_sessions, completed_projects, theory_hours_completed, practice_hours_completed,
            last_activity, created_at, updated_at{names})
        SELECT v.user_id, v.specialization, v.level, 0, 0, 0, 0, 0,
               v.advanced_at, clock_timestamp(), clock_timestamp(){values}
        {_NEW_ROWS}{source}
        ON CONFLICT (student_id, specialization_id) DO NOTHING
        RETURNING id, student_id AS user_id, specialization_id AS specialization
    """)


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

FIND_DEAD_LETTER = text("""
    SELECT EXISTS (
        SELECT FROM levelsync.dead_letters d
         WHERE d.topic = :topic AND d.partition = :partition AND d."offset" = :offset
           AND d.record_timestamp = :timestamp
           AND d.value_digest = coalesce(encode(sha256(CAST(:value AS bytea)), 'hex'), ''))
""")
"""Whether a record is a dead letter already."""

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

MOVE_POSITIONS = text("""
    WITH locked AS MATERIALIZED (
        SELECT a.topic, a.partition, a.next_offset, a.topic_id, k.next_offset AS moved_to, k.leader_epoch
          FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[]), CAST(:offsets AS bigint[]),
                      CAST(:epochs AS int[])) AS k (topic, partition, next_offset, leader_epoch)
          JOIN levelsync.applied_offsets a ON a.topic = k.topic AND a.partition = k.partition
         ORDER BY a.topic, a.partition
           FOR NO KEY UPDATE OF a
    ), moved AS (
        UPDATE levelsync.applied_offsets AS a
           SET next_offset = greatest(a.next_offset, l.moved_to), updated_at = clock_timestamp(),
               leader_epoch = CASE WHEN l.moved_to >= a.next_offset THEN l.leader_epoch ELSE a.leader_epoch END
          FROM locked l
         WHERE a.topic = l.topic AND a.partition = l.partition AND l.moved_to IS NOT NULL
    )
    SELECT topic, partition, next_offset, topic_id FROM locked
""")
"""Lock the position rows of a batch, move those that got further (a replay leaves them), and tell where they were: the
consumer compares that with what it found or stored last (law 3)."""

READ_POSITIONS = text("""
    SELECT a.topic, a.partition, a.next_offset, a.cluster_id, a.topic_id, a.leader_epoch
      FROM unnest(CAST(:topics AS text[]), CAST(:partitions AS int[])) AS k (topic, partition)
      JOIN levelsync.applied_offsets a ON a.topic = k.topic AND a.partition = k.partition
""")
"""Where the partitions of a new assignment stand."""

SET_POSITION = text("""
    INSERT INTO levelsync.applied_offsets (topic, partition, next_offset, cluster_id, topic_id, leader_epoch)
    VALUES (:topic, :partition, :next_offset, :cluster_id, :topic_id, :leader_epoch)
        ON CONFLICT (topic, partition) DO UPDATE
       SET next_offset = excluded.next_offset, cluster_id = excluded.cluster_id, topic_id = excluded.topic_id,
           leader_epoch = excluded.leader_epoch, updated_at = clock_timestamp()
""")
"""Start a partition's position anew."""
