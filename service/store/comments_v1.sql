-- The meaning of each view and column, for tools that show comments. A later text needs a new file and a revision.

COMMENT ON VIEW levelsync.pairs IS
  'Every pair of user and specialization, its two levels compared now. An event on its way differs too, for a moment. Reading it reads both tables.';
COMMENT ON COLUMN levelsync.pairs.user_id IS
  'the user';
COMMENT ON COLUMN levelsync.pairs.specialization IS
  'as the progress row spells it; as the license spells it where there is no progress row';
COMMENT ON COLUMN levelsync.pairs.progress_level IS
  'the level in specialization_progress; NULL without a row, or with a row without a level';
COMMENT ON COLUMN levelsync.pairs.license_level IS
  'the level in user_licenses; NULL without a row';
COMMENT ON COLUMN levelsync.pairs.state IS
  'in_sync, mismatched, missing_license, missing_progress, or null_level (progress without a level)';

COMMENT ON VIEW levelsync.drift IS
  'What the last complete scan of everything confirmed and did not heal. Complete up to the breaker''s limit; beyond it 1,000 samples.';
COMMENT ON COLUMN levelsync.drift.user_id IS
  'the user';
COMMENT ON COLUMN levelsync.drift.specialization IS
  'the specialization';
COMMENT ON COLUMN levelsync.drift.kind IS
  'mismatched, missing_license or missing_progress';
COMMENT ON COLUMN levelsync.drift.progress_level IS
  'the level in specialization_progress that the scan saw, and still found at its confirmation';
COMMENT ON COLUMN levelsync.drift.license_level IS
  'the level in user_licenses that the scan saw, and still found at its confirmation';
COMMENT ON COLUMN levelsync.drift.seen_at IS
  'when the scan saw the pair';
COMMENT ON COLUMN levelsync.drift.run_id IS
  'the run, as levelsync runs shows it';

COMMENT ON VIEW levelsync.run_summary IS
  'Every reconcile run, also those of one user or one specialization.';
COMMENT ON COLUMN levelsync.run_summary.run_id IS
  'the run''s id';
COMMENT ON COLUMN levelsync.run_summary.status IS
  'planning, running, completed, stopped_by_breaker, cancelled or expired';
COMMENT ON COLUMN levelsync.run_summary.direction IS
  'which row the run believes: progress_to_license, license_to_progress or highest';
COMMENT ON COLUMN levelsync.run_summary.dry_run IS
  'whether the run only reports';
COMMENT ON COLUMN levelsync.run_summary.requested_by IS
  'who asked for the run';
COMMENT ON COLUMN levelsync.run_summary.requested_at IS
  'when the run was asked for';
COMMENT ON COLUMN levelsync.run_summary.finished_at IS
  'when the run ended; NULL while it runs';
COMMENT ON COLUMN levelsync.run_summary.duration IS
  'from the request to the end; NULL while it runs';
COMMENT ON COLUMN levelsync.run_summary.would_stop IS
  'whether the breaker would stop, or stopped, a run that writes';
COMMENT ON COLUMN levelsync.run_summary.counts IS
  'JSON: scanned, matching, mismatched, missing_license, missing_progress, lowered, needs_decision, unconfirmed, healed, changed_meanwhile, failed';

COMMENT ON VIEW levelsync.complete_scans IS
  'Runs over everything that confirmed all that they saw. levelsync''s own; dashboards read run_summary.';
COMMENT ON COLUMN levelsync.complete_scans.run_id IS
  'the run''s id';
COMMENT ON COLUMN levelsync.complete_scans.finished_at IS
  'when the run ended';
COMMENT ON COLUMN levelsync.complete_scans.counts IS
  'as in run_summary';

COMMENT ON TABLE levelsync.applied_offsets IS
  'How far each partition has been applied, stored in the transaction of the effects.';
COMMENT ON COLUMN levelsync.applied_offsets.topic IS
  'the topic';
COMMENT ON COLUMN levelsync.applied_offsets."partition" IS
  'the partition';
COMMENT ON COLUMN levelsync.applied_offsets.next_offset IS
  'the first offset that is not applied yet';
COMMENT ON COLUMN levelsync.applied_offsets.cluster_id IS
  'the Kafka cluster that the offset counts on; empty where it is not known';
COMMENT ON COLUMN levelsync.applied_offsets.updated_at IS
  'when the position moved last';
COMMENT ON COLUMN levelsync.applied_offsets.topic_id IS
  'the id of the topic that the offset counts on; empty where the broker gives none';
COMMENT ON COLUMN levelsync.applied_offsets.leader_epoch IS
  'the leader epoch of the record before the offset; -1 where it is not known';

COMMENT ON TABLE levelsync.dead_letters IS
  'Records that could not be applied, kept as they were published. They may hold personal data.';
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
  'the record''s value, as bytes; NULL for a tombstone';
COMMENT ON COLUMN levelsync.dead_letters.value_digest IS
  'SHA-256 of the value in hexadecimal; empty for a tombstone';
COMMENT ON COLUMN levelsync.dead_letters.headers IS
  'the record''s headers, in their order';
COMMENT ON COLUMN levelsync.dead_letters.reason IS
  'why the record was not applied: malformed, invalid, bad_time, unknown_type, unknown_specialization, unknown_user, level_out_of_range, refused_by_database or too_large';
COMMENT ON COLUMN levelsync.dead_letters.detail IS
  'the reason in a sentence';
COMMENT ON COLUMN levelsync.dead_letters.first_seen_at IS
  'when the record was read first';
COMMENT ON COLUMN levelsync.dead_letters.attempts IS
  'how often the record was tried: once, and once for each replay that failed';
COMMENT ON COLUMN levelsync.dead_letters.resolved_at IS
  'when the letter was closed; NULL while it is open';
COMMENT ON COLUMN levelsync.dead_letters.resolution IS
  'how the letter was closed: replayed or discarded';
COMMENT ON COLUMN levelsync.dead_letters.replayed_at IS
  'when the replay that is on its way was sent; NULL without one';
COMMENT ON COLUMN levelsync.dead_letters.last_attempt_timestamp IS
  'timestamp of the last replayed record that failed, in milliseconds since 1970';
COMMENT ON COLUMN levelsync.dead_letters.resolved_by IS
  'who closed the letter';
