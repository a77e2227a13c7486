-- The comments on the views and tables that others may read. BI tools show them. A changed text needs a revision that
-- executes this file again, as plain_comments does.

COMMENT ON VIEW levelsync.pairs IS
  'Every pair, with its two levels, compared when you query the view. A pair also differs while its event is not applied yet. A query reads both level tables.';
COMMENT ON COLUMN levelsync.pairs.user_id IS
  'the user';
COMMENT ON COLUMN levelsync.pairs.specialization IS
  'the name in the progress row, or in the license if there is no progress row';
COMMENT ON COLUMN levelsync.pairs.progress_level IS
  'the level in specialization_progress; NULL if the row does not exist or has no level';
COMMENT ON COLUMN levelsync.pairs.license_level IS
  'the level in user_licenses; NULL if the row does not exist';
COMMENT ON COLUMN levelsync.pairs.state IS
  'in_sync, mismatched, missing_license, missing_progress, or null_level (the progress row has no level)';

COMMENT ON VIEW levelsync.drift IS
  'Drift that the last complete scan confirmed and did not heal. A run stores all drift up to the breaker''s limit, and 1,000 samples above it.';
COMMENT ON COLUMN levelsync.drift.user_id IS
  'the user';
COMMENT ON COLUMN levelsync.drift.specialization IS
  'the specialization';
COMMENT ON COLUMN levelsync.drift.kind IS
  'mismatched, missing_license or missing_progress';
COMMENT ON COLUMN levelsync.drift.progress_level IS
  'the level in specialization_progress at the scan, unchanged at the confirmation';
COMMENT ON COLUMN levelsync.drift.license_level IS
  'the level in user_licenses at the scan, unchanged at the confirmation';
COMMENT ON COLUMN levelsync.drift.seen_at IS
  'when the run confirmed the drift';
COMMENT ON COLUMN levelsync.drift.run_id IS
  'the id of the run, as levelsync runs shows it';

COMMENT ON VIEW levelsync.run_summary IS
  'Every run, including runs of one user or one specialization.';
COMMENT ON COLUMN levelsync.run_summary.run_id IS
  'the run''s id';
COMMENT ON COLUMN levelsync.run_summary.status IS
  'planning, running, completed, stopped_by_breaker, cancelled or expired';
COMMENT ON COLUMN levelsync.run_summary.direction IS
  'the direction of the run: progress_to_license, license_to_progress or highest';
COMMENT ON COLUMN levelsync.run_summary.dry_run IS
  'whether the run only reports what it would heal';
COMMENT ON COLUMN levelsync.run_summary.requested_by IS
  'who requested the run';
COMMENT ON COLUMN levelsync.run_summary.requested_at IS
  'when the run was requested';
COMMENT ON COLUMN levelsync.run_summary.finished_at IS
  'when the run ended; NULL until then';
COMMENT ON COLUMN levelsync.run_summary.duration IS
  'the time from the request to the end; NULL until the run has ended';
COMMENT ON COLUMN levelsync.run_summary.would_stop IS
  'whether the breaker stopped the run, or would stop it if it were neither dry nor forced';
COMMENT ON COLUMN levelsync.run_summary.counts IS
  'JSON: scanned, matching, mismatched, missing_license, missing_progress, lowered, needs_decision, unconfirmed, healed, changed_meanwhile, failed';

COMMENT ON VIEW levelsync.complete_scans IS
  'Runs over all pairs that ended and confirmed every suspect. levelsync itself reads this view. Use run_summary for dashboards.';
COMMENT ON COLUMN levelsync.complete_scans.run_id IS
  'the run''s id';
COMMENT ON COLUMN levelsync.complete_scans.finished_at IS
  'when the run ended';
COMMENT ON COLUMN levelsync.complete_scans.counts IS
  'the counts, as in run_summary';

COMMENT ON TABLE levelsync.applied_offsets IS
  'The position of each partition. The transaction that applies a batch also stores its position.';
COMMENT ON COLUMN levelsync.applied_offsets.topic IS
  'the topic';
COMMENT ON COLUMN levelsync.applied_offsets."partition" IS
  'the partition';
COMMENT ON COLUMN levelsync.applied_offsets.next_offset IS
  'the next offset to apply';
COMMENT ON COLUMN levelsync.applied_offsets.cluster_id IS
  'the id of the Kafka cluster that the offset belongs to; empty if it is not known';
COMMENT ON COLUMN levelsync.applied_offsets.updated_at IS
  'when the position was last stored';
COMMENT ON COLUMN levelsync.applied_offsets.topic_id IS
  'the id of the topic that the offset belongs to; empty if the broker has no topic ids';
COMMENT ON COLUMN levelsync.applied_offsets.leader_epoch IS
  'the leader epoch of the record before the offset; -1 if it is not known';

COMMENT ON TABLE levelsync.dead_letters IS
  'Records that can never apply, stored unchanged with the reason. They may contain personal data.';
COMMENT ON COLUMN levelsync.dead_letters.id IS
  'the letter''s id, as levelsync dead-letters shows it';
COMMENT ON COLUMN levelsync.dead_letters.topic IS
  'the record''s topic';
COMMENT ON COLUMN levelsync.dead_letters."partition" IS
  'the record''s partition';
COMMENT ON COLUMN levelsync.dead_letters."offset" IS
  'the record''s offset';
COMMENT ON COLUMN levelsync.dead_letters.record_timestamp IS
  'milliseconds since 1970, as Kafka has it';
COMMENT ON COLUMN levelsync.dead_letters.key IS
  'the record''s key, as bytes';
COMMENT ON COLUMN levelsync.dead_letters.value IS
  'the record''s value, as bytes, or its beginning if the reason is too_large; NULL for a tombstone';
COMMENT ON COLUMN levelsync.dead_letters.value_digest IS
  'SHA-256 of the value in hexadecimal; empty for a tombstone';
COMMENT ON COLUMN levelsync.dead_letters.headers IS
  'the record''s headers, in their order';
COMMENT ON COLUMN levelsync.dead_letters.reason IS
  'why the record cannot apply: malformed, invalid, bad_time, unknown_type, unknown_specialization, unknown_user, level_out_of_range, refused_by_database or too_large';
COMMENT ON COLUMN levelsync.dead_letters.detail IS
  'the reason in a sentence';
COMMENT ON COLUMN levelsync.dead_letters.first_seen_at IS
  'when the record was first read';
COMMENT ON COLUMN levelsync.dead_letters.attempts IS
  'how often the record was tried: once, and once for each replay that failed';
COMMENT ON COLUMN levelsync.dead_letters.resolved_at IS
  'when the letter was closed; NULL while it is open';
COMMENT ON COLUMN levelsync.dead_letters.resolution IS
  'how the letter was closed: replayed or discarded';
COMMENT ON COLUMN levelsync.dead_letters.replayed_at IS
  'when the last replay was sent; NULL without a replay, or when its outcome is known';
COMMENT ON COLUMN levelsync.dead_letters.last_attempt_timestamp IS
  'the timestamp of the last replayed record that failed, in milliseconds since 1970';
COMMENT ON COLUMN levelsync.dead_letters.resolved_by IS
  'who last requested a replay or the discard';
