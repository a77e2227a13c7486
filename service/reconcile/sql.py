"""The reconciler's statements. The comparison shares no code with the appliers, so that it can find their errors."""

from __future__ import annotations

from typing import Literal

from sqlalchemy import TextClause, text

from service.store.comparison import COUNTED_WITH_LICENSE, OF_ONE_LICENSE, OF_ONE_PROGRESS, compared

ADD_RUN = text("""
    INSERT INTO levelsync.reconcile_runs
           (id, direction, dry_run, force, specialization, user_id, max_lowered, requested_by, due_at)
    VALUES (:id, :direction, :dry_run, :force, :specialization, :user_id, :max_lowered, :requested_by,
            clock_timestamp())
        ON CONFLICT (id) DO NOTHING
 RETURNING *
""")
"""Add a run. A request that is delivered twice adds only one run."""

HAS_EXPIRED = text("SELECT CAST(:occurred_at AS timestamptz) < clock_timestamp() - CAST(:kept AS interval)")

RECORD_REQUEST = text("""
    INSERT INTO levelsync.admin_actions (subject, role, action, arguments, outcome, detail)
    SELECT :subject, 'event', 'request_run', CAST(:arguments AS jsonb), 'done', :detail
     WHERE NOT EXISTS (SELECT FROM levelsync.admin_actions
                        WHERE action = 'request_run' AND outcome = 'done' AND at > clock_timestamp() - interval '1 day'
                          AND arguments ->> 'run_id' = :run_id)
""")

READ_RUN = text("SELECT * FROM levelsync.reconcile_runs WHERE id = :id")

LOCK_RUN = text("SELECT * FROM levelsync.reconcile_runs WHERE id = :id FOR UPDATE")
"""Lock a run. A phase is closed under this lock, and its open ranges are counted in a later statement."""

UNFINISHED = text("""
    SELECT id, step, due_at, wait_seconds FROM levelsync.reconcile_runs WHERE finished_at IS NULL ORDER BY due_at, id
""")
"""Read every run that has not ended. `due_at` changes with each step. Each process decides by its own clock when the
step is due."""

LOCK_STEP = text("""
    SELECT * FROM levelsync.reconcile_runs
     WHERE id = :id AND finished_at IS NULL AND due_at = :due_at FOR UPDATE SKIP LOCKED
""")
"""Lock the run, unless another process has done this step or is doing it."""

SET_STEP = text("""
    UPDATE levelsync.reconcile_runs
       SET step = CAST(:step AS text), status = :status, phase = :phase, wait_seconds = :after,
           due_at = clock_timestamp() + :after * interval '1 second',
           step_began_at = CASE WHEN step = CAST(:step AS text) THEN step_began_at ELSE clock_timestamp() END,
           seconds_left = CASE WHEN step = CAST(:step AS text) THEN seconds_left ELSE CAST(:left AS float8) END
     WHERE id = :id
""")
"""Set the next step. If the run stays at its step, the time when the step began stays too."""

PUT_OFF = text("""
    UPDATE levelsync.reconcile_runs
       SET due_at = clock_timestamp() + :after * interval '1 second', wait_seconds = :after
     WHERE id = :id
""")
"""Postpone a failed step, so that it is no longer the first that is due."""

SET_GOAL = text("""
    UPDATE levelsync.reconcile_runs
       SET end_offsets = CAST(:ends AS jsonb), topic_ids = CAST(:topic_ids AS jsonb),
           give_up_at = clock_timestamp() + :timeout * interval '1 second'
     WHERE id = :id
""")
"""Store the offsets that the appliers have to reach, and until when the run waits for them."""

SET_WOULD_STOP = text("UPDATE levelsync.reconcile_runs SET would_stop = true WHERE id = :id")

FINISH_RUN = text("""
    UPDATE levelsync.reconcile_runs
       SET status = :status, step = 'done', due_at = NULL, finished_at = clock_timestamp(), detail = :detail,
           counts = CAST(:counts AS jsonb)
     WHERE id = :id AND finished_at IS NULL
 RETURNING *
""")
"""End a run that has not ended."""

NEXT_BOUNDARY = text("""
    SELECT least(
        (SELECT student_id FROM specialization_progress WHERE student_id > CAST(:after AS bigint)
          ORDER BY student_id OFFSET :rows LIMIT 1),
        (SELECT user_id FROM user_licenses WHERE user_id > CAST(:after AS bigint)
          ORDER BY user_id OFFSET :rows LIMIT 1))
""")
"""Find the user at which the next range ends, so that the range has at most about `rows` rows in each table."""

LAST_USER = text("""
    SELECT greatest((SELECT max(student_id) FROM specialization_progress),
                    (SELECT max(user_id) FROM user_licenses))
""")

USERS_BETWEEN = text("""
    SELECT count(*) FROM (
           SELECT student_id FROM specialization_progress WHERE student_id > :after AND student_id <= :upto
            UNION
           SELECT user_id FROM user_licenses WHERE user_id > :after AND user_id <= :upto) AS users
""")
"""Count users without reading their levels."""

PLANNED_UPTO = text("SELECT max(chunk), max(upto_user) FROM levelsync.reconcile_ranges WHERE run_id = :id")

ADD_RANGES = text("""
    INSERT INTO levelsync.reconcile_ranges (run_id, chunk, after_user, upto_user)
    SELECT :id, v.* FROM unnest(CAST(:chunks AS int[]), CAST(:afters AS bigint[]), CAST(:uptos AS bigint[])) AS v
""")

LOCK_RANGE = text("""
    SELECT r.*, g.after_user, g.upto_user, g.done_phase, g.counts AS range_counts,
           jsonb_path_query_array(g.suspects, '$[0 to $last]',
                                  jsonb_build_object('last', CAST(:most AS int) - 1)) AS suspects
      FROM levelsync.reconcile_ranges g JOIN levelsync.reconcile_runs r ON r.id = g.run_id
     WHERE g.run_id = :id AND g.chunk = :chunk FOR UPDATE OF g
""")
"""Lock a range, and read it with its run and its first suspects. The transaction that has the lock does the work. If a
message is delivered twice, the second transaction finds the work done."""

OPEN_RANGES = text("""
    SELECT chunk FROM levelsync.reconcile_ranges WHERE run_id = :id AND done_phase < :phase ORDER BY chunk
""")

STALE_RANGES = text("""
    UPDATE levelsync.reconcile_ranges SET sent_at = clock_timestamp()
     WHERE run_id = :id AND done_phase < :phase
       AND (sent_at < clock_timestamp() - :older * interval '1 second' OR sent_at > clock_timestamp())
 RETURNING chunk
""")
"""Return the open ranges whose message was sent long ago, or in the future because a clock was set back. Mark them as
sent now."""

MARK_SENT = text("""
    UPDATE levelsync.reconcile_ranges SET sent_at = clock_timestamp() WHERE run_id = :id AND done_phase < :phase
""")

RANGE_SCANNED = text("""
    UPDATE levelsync.reconcile_ranges
       SET done_phase = CASE WHEN :suspect_count = 0 THEN 3 ELSE 1 END, suspects = CAST(:suspects AS jsonb),
           suspect_count = :suspect_count, counts = CAST(:counts AS jsonb)
     WHERE run_id = :id AND chunk = :chunk
""")
"""Store the result of a scan. A range without suspects is done, because there is nothing to confirm or heal."""

RANGE_CONFIRMED = text("""
    UPDATE levelsync.reconcile_ranges
       SET done_phase = :phase, suspects = CAST(:suspects AS jsonb), suspect_count = :suspect_count,
           counts = counts || CAST(:counts AS jsonb)
     WHERE run_id = :id AND chunk = :chunk
""")
"""Store the suspects that are left to heal, and the counts of the confirmation."""

RANGE_HEALED = text("""
    UPDATE levelsync.reconcile_ranges
       SET done_phase = CASE WHEN suspect_count = :done THEN 3 ELSE 2 END, suspect_count = suspect_count - :done,
           suspects = jsonb_path_query_array(suspects, '$[$first to last]',
                                             jsonb_build_object('first', CAST(:taken AS int))) || CAST(:held AS jsonb),
           counts = counts || CAST(:counts AS jsonb)
     WHERE run_id = :id AND chunk = :chunk
""")
"""Store the suspects that are still left to heal, the held ones last, and the counts so far."""

_LEVELS_OF_PAIRS = """
    SELECT array_agg(f.level) AS levels, array_agg(f.present) AS present
      FROM (SELECT r.level, coalesce(r.present, false) AS present
              FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[]))
                   WITH ORDINALITY AS k (user_id, specialization, number)
              LEFT JOIN LATERAL (
                   SELECT p.current_level AS level, true AS present FROM {table} p
                    WHERE p.{user} = k.user_id AND CAST(p.{specialization} AS text) = k.specialization
                    LIMIT 1 {lock}) r ON true
             ORDER BY k.number) f
"""
_LOCKS = {"wait": "FOR SHARE", "skip": "FOR SHARE SKIP LOCKED", "none": ""}


def progress_of_pairs(lock: Literal["wait", "skip", "none"]) -> TextClause:
    """Return the statement that reads the progress of pairs, in their order.

    It looks up each row in an index. A lock prevents changes of the rows until the transaction ends.
    """
    key = {"table": "specialization_progress", "user": "student_id", "specialization": "specialization_id"}
    return text(_LEVELS_OF_PAIRS.format(lock=_LOCKS[lock], **key))


def licenses_of_pairs(lock: Literal["wait", "skip", "none"]) -> TextClause:
    """Return the statement that reads the licenses of pairs in the same way."""
    key = {"table": "user_licenses", "user": "user_id", "specialization": "specialization_type"}
    return text(_LEVELS_OF_PAIRS.format(lock=_LOCKS[lock], **key))


RANGE_COUNTS = text("SELECT counts FROM levelsync.reconcile_ranges WHERE run_id = :id")

SUSPECTS = text("SELECT coalesce(sum(suspect_count), 0) FROM levelsync.reconcile_ranges WHERE run_id = :id")

SUSPECT_KINDS = text("""
    SELECT s.suspect ->> 2 AS kind, count(*) AS number
      FROM levelsync.reconcile_ranges g, jsonb_array_elements(g.suspects) AS s (suspect)
     WHERE g.run_id = :id GROUP BY 1 ORDER BY 1
""")

ONE_TABLE_IS_EMPTY = text("""
    SELECT EXISTS (SELECT FROM specialization_progress) <> EXISTS (SELECT FROM user_licenses)
""")

ALL_SUSPECTS = text("""
    SELECT s.suspect FROM levelsync.reconcile_ranges g, jsonb_array_elements(g.suspects) AS s (suspect)
     WHERE g.run_id = :id ORDER BY g.chunk LIMIT :most
""")

PROGRESS = text("""
    SELECT g.run_id, sum(least(g.done_phase, m.passes)) AS done, sum(m.passes) AS total
      FROM levelsync.reconcile_ranges g
      JOIN unnest(CAST(:ids AS uuid[]), CAST(:passes AS int[])) AS m (run_id, passes) ON m.run_id = g.run_id
     GROUP BY g.run_id
""")
"""Count the passes over ranges that are done, and all passes. A dry run has no pass that heals."""

PACE = text("""
    SELECT r.id, r.step, r.seconds_left,
           CAST(greatest(coalesce(extract(epoch FROM clock_timestamp() - r.step_began_at), 0), 0) AS float8) AS seconds,
           CAST(coalesce(w.total, 0) AS bigint) AS total, CAST(coalesce(w.open, 0) AS bigint) AS open,
           CAST(coalesce(w.scanned, 0) AS bigint) AS scanned
      FROM levelsync.reconcile_runs r,
           LATERAL (SELECT sum(CASE r.step WHEN 'scan' THEN 1
                               WHEN 'confirm' THEN n.scanned - n.matching WHEN 'heal' THEN n.confirmed END) AS total,
                           sum(CASE WHEN g.done_phase >= r.phase THEN 0
                               WHEN r.step = 'scan' THEN 1 ELSE g.suspect_count END) AS open,
                           sum(n.scanned) AS scanned
                      FROM levelsync.reconcile_ranges g,
                           LATERAL (SELECT coalesce(CAST(g.counts ->> 'scanned' AS bigint), 0) AS scanned,
                                           coalesce(CAST(g.counts ->> 'matching' AS bigint), 0) AS matching,
                                           coalesce(CAST(g.counts ->> 'mismatched' AS bigint), 0)
                                         + coalesce(CAST(g.counts ->> 'missing_license' AS bigint), 0)
                                         + coalesce(CAST(g.counts ->> 'missing_progress' AS bigint), 0) AS confirmed
                                   ) n
                     WHERE g.run_id = r.id) w
     WHERE r.id = ANY(CAST(:ids AS uuid[])) AND r.finished_at IS NULL
""")
"""Read how long the current step has lasted, its work in total, and the work that is left (`open`).

The work of a scan is counted in ranges, and that of the other steps in pairs.
"""

STORE_TIME_LEFT = text("""
    UPDATE levelsync.reconcile_runs SET seconds_left = least(seconds_left, CAST(:left AS float8))
     WHERE id = (SELECT id FROM levelsync.reconcile_runs
                  WHERE id = :id AND step = :step AND finished_at IS NULL FOR UPDATE SKIP LOCKED)
""")
"""Store the lowest estimate of this step. Skip a locked row, because its step is just changing."""

COUNTS_OF_RUNS = text("""
    SELECT run_id, counts FROM levelsync.reconcile_ranges WHERE run_id = ANY(CAST(:ids AS uuid[]))
""")

READ_RUNS = text("SELECT * FROM levelsync.reconcile_runs ORDER BY requested_at DESC, id LIMIT :limit")

FIND_RUNS_BY_PREFIX = text("""
    SELECT * FROM levelsync.reconcile_runs WHERE starts_with(CAST(id AS text), :prefix) ORDER BY id LIMIT 2
""")

FALLS = """
    coalesce(i.kind = 'mismatched' AND CASE r.direction
             WHEN 'progress_to_license' THEN i.progress_level < i.license_level
             WHEN 'license_to_progress' THEN i.license_level < i.progress_level END, false)
"""
"""Whether the run `r` lowers a level of the issue `i`."""
READ_ISSUES = text(f"""
    SELECT user_id, user_email, specialization, issue_type, progress_level, license_level, status, detail, seen_at,
           lowered
      FROM (
    SELECT i.user_id, u.email AS user_email, i.specialization, i.kind AS issue_type, i.progress_level,
           i.license_level, i.status, i.detail, i.seen_at,
           {FALLS} AS lowered
      FROM levelsync.drift_issues i
      JOIN levelsync.reconcile_runs r ON r.id = i.run_id
      LEFT JOIN users u ON u.id = i.user_id
     WHERE i.run_id = :id AND (i.user_id, i.specialization) > (:user, :specialization)
    ) found WHERE CAST(:lowered AS boolean) IS NULL OR lowered = CAST(:lowered AS boolean)
     ORDER BY user_id, specialization LIMIT :limit
""")

SCANNED_AND_KEPT = text("""
    SELECT (SELECT coalesce(sum(CAST(counts ->> 'scanned' AS bigint)), 0)
              FROM levelsync.reconcile_ranges WHERE run_id = :id) AS scanned,
           (SELECT count(*) FROM levelsync.drift_issues WHERE run_id = :id) AS kept
""")
"""Count the pairs that a run has scanned, and the issues that it has stored."""

ADD_ISSUES = text("""
    INSERT INTO levelsync.drift_issues
           (run_id, user_id, specialization, kind, progress_level, license_level, status, detail)
    SELECT :id, v.* FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[]), CAST(:kinds AS text[]),
                                CAST(:progress AS int[]), CAST(:licenses AS int[]), CAST(:statuses AS text[]),
                                CAST(:details AS text[])) AS v
        ON CONFLICT (run_id, user_id, specialization) DO NOTHING
""")

SET_ISSUES = text("""
    UPDATE levelsync.drift_issues AS i SET status = :status, detail = :detail
      FROM (SELECT o.place
              FROM unnest(CAST(:users AS bigint[]), CAST(:specializations AS text[])) AS k (user_id, specialization)
             CROSS JOIN LATERAL (
                   SELECT d.ctid AS place FROM levelsync.drift_issues d
                    WHERE d.run_id = :id AND d.user_id = k.user_id AND d.specialization = k.specialization LIMIT 1) o
           ) v
     WHERE i.ctid = v.place
""")
"""Set the outcome of stored issues. The LATERAL lookup finds each by its key. In a plain join, PostgreSQL would
compare every issue of the run with every pair, which took three quarters of a heal's time."""

APPLIED_OFFSETS = text("SELECT topic, partition, next_offset, cluster_id, topic_id FROM levelsync.applied_offsets")


def compare_range(specialization: str | None) -> str:
    """Return the statement that compares a range, of one specialization or of all, and returns what differs.

    Progress whose license has the name in another case is counted with the license, and not again.
    """
    progress = "student_id > CAST(:after AS bigint) AND student_id <= CAST(:upto AS bigint)"
    licenses = "user_id > CAST(:after AS bigint) AND user_id <= CAST(:upto AS bigint)"
    if specialization is not None:
        progress, licenses = f"{progress} AND {OF_ONE_PROGRESS}", f"{licenses} AND {OF_ONE_LICENSE}"
    return f"""
        SELECT count(*) FILTER (WHERE kind IS DISTINCT FROM '{COUNTED_WITH_LICENSE}') AS scanned,
               count(*) FILTER (WHERE kind IS NULL) AS matching,
               coalesce(jsonb_agg(jsonb_build_array(user_id, specialization, kind, progress_level, license_level))
                        FILTER (WHERE kind <> '{COUNTED_WITH_LICENSE}'), '[]') AS suspects
          FROM ({compared(progress, licenses)}) c"""
