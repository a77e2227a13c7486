-- The functions that exist once for both tables. levels_v1.sql describes their parameters.

CREATE OR REPLACE FUNCTION levelsync.settle_plans_v1() RETURNS void LANGUAGE plpgsql AS $body$
-- Configure the planner until the transaction ends. It keeps one plan for each statement, because planning takes longer
-- than a small batch. The plan looks up rows one by one, and so remains suitable when the tables grow.
BEGIN
    IF current_setting('plan_cache_mode') <> 'force_generic_plan' THEN
        PERFORM set_config('plan_cache_mode', 'force_generic_plan', true), set_config('enable_seqscan', 'off', true),
                set_config('enable_hashjoin', 'off', true), set_config('enable_mergejoin', 'off', true);
    END IF;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.refuse_v1(p_table text, p_users bigint[], p_levels integer[], p_rows integer)
RETURNS void LANGUAGE plpgsql AS $body$
-- Raise LS101, because `p_rows` rows do not have the decided level after the write.
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'LS101', MESSAGE = CASE
        WHEN cardinality(p_users) = 1 THEN format(
            '%s does not hold level %s for user %s after the write: a trigger of the application changed or swallowed it',
            p_table, p_levels[1], p_users[1])
        ELSE format('%s rows of %s do not hold the levels that were written: a trigger of the application changed them',
                    p_rows, p_table) END;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.curriculum_v1() RETURNS text LANGUAGE plpgsql AS $body$
-- Return the contents of `specializations` as a text that can be compared: the versions of the column max_levels and of
-- the rows, a colon, and the names with their maxima, if the table has that column. Two texts with different versions can
-- have equal contents.
BEGIN
    RETURN @versions@ || (
        SELECT string_agg(format('%s=%s', s.id, to_jsonb(s) ->> 'max_levels'), E'\n' ORDER BY s.id::text COLLATE "C")
          FROM @specializations@ s);
END $body$;

CREATE OR REPLACE FUNCTION levelsync.curriculum_is_v1(p_curriculum text) RETURNS boolean LANGUAGE plpgsql AS $body$
-- Return whether `specializations` still has the contents in `p_curriculum`. The contents are compared only if the
-- versions differ.
BEGIN
    RETURN coalesce(starts_with(p_curriculum, @versions@), false)
        OR substr(p_curriculum, position(':' IN p_curriculum)) IS NOT DISTINCT FROM (
           SELECT substr(c.now, position(':' IN c.now)) FROM levelsync.curriculum_v1() AS c (now));
END $body$;

CREATE OR REPLACE FUNCTION levelsync.lock_positions_v1(
    p_topics text[], p_partitions integer[], OUT positions bigint[], OUT topic_ids text[]
) LANGUAGE plpgsql AS $body$
-- Lock the rows of positions and read them. The caller passes them sorted. The position is -1 if a row does not exist.
-- There are few rows, and one statement for each costs less than a join.
DECLARE
    reached bigint;
    topic_id text;
BEGIN
    PERFORM levelsync.settle_plans_v1();
    FOR slot IN 1 .. cardinality(p_topics) LOOP
        SELECT a.next_offset, a.topic_id INTO reached, topic_id FROM levelsync.applied_offsets a
         WHERE a.topic = p_topics[slot] AND a.partition = p_partitions[slot] FOR NO KEY UPDATE;
        positions[slot] := coalesce(reached, -1);
        topic_ids[slot] := coalesce(topic_id, '');
    END LOOP;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.move_positions_v1(
    p_topics text[], p_partitions integer[], p_next bigint[], p_epochs integer[], p_stopped boolean[]
) RETURNS void LANGUAGE plpgsql AS $body$
-- Move positions whose rows the transaction has locked, except those of the partitions in `p_stopped`. A position never
-- decreases, also when the consumer reads old records again.
DECLARE
    slot integer;
BEGIN
    FOR slot IN 1 .. cardinality(p_topics) LOOP
        IF p_next[slot] IS NOT NULL AND NOT p_stopped[slot] THEN
            UPDATE levelsync.applied_offsets AS a
               SET next_offset = greatest(a.next_offset, p_next[slot]), updated_at = clock_timestamp(),
                   leader_epoch = CASE WHEN p_next[slot] >= a.next_offset THEN p_epochs[slot] ELSE a.leader_epoch END
             WHERE a.topic = p_topics[slot] AND a.partition = p_partitions[slot];
        END IF;
    END LOOP;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.read_fences_v1(p_users bigint[], p_specs integer[], p_names text[])
RETURNS bigint[] LANGUAGE plpgsql AS $body$
-- Return the time of each pair's last fence, whatever the case of the name, or the lowest bigint if there is no fence.
-- The caller must use a later statement than the one that locks (law 6).
BEGIN
    IF cardinality(p_users) = 1 THEN
        IF NOT EXISTS (SELECT FROM levelsync.fences t
                        WHERE t.user_id = p_users[1] AND t.folded = upper(p_names[p_specs[1]] COLLATE "C")) THEN
            RETURN '{-9223372036854775808}'::bigint[];
        END IF;
        RETURN ARRAY[coalesce(
            (SELECT (extract(epoch FROM max(least(t.decided_at, timestamptz '9999-01-01'))) * 1000000)::bigint
               FROM levelsync.fences t
              WHERE t.user_id = p_users[1] AND t.folded = upper(p_names[p_specs[1]] COLLATE "C")),
            -9223372036854775808)];
    END IF;
    RETURN (SELECT array_agg(f.decided) FROM (
        SELECT coalesce((SELECT (extract(epoch FROM max(least(t.decided_at, timestamptz '9999-01-01'))) * 1000000)::bigint
                           FROM levelsync.fences t
                          WHERE t.user_id = k.user_id AND t.folded = upper(p_names[k.spec] COLLATE "C")),
                        -9223372036854775808) AS decided
          FROM unnest(p_users, p_specs) WITH ORDINALITY AS k (user_id, spec, pair)
         ORDER BY k.pair) f);
END $body$;

CREATE OR REPLACE FUNCTION levelsync.lock_users_v1(p_users bigint[], p_ids bigint[], p_wait boolean)
RETURNS bigint[] LANGUAGE plpgsql AS $body$
-- Lock the users of the rows that have to be created (id 0), so that nobody deletes a user before the insert. Return
-- `p_ids` with -2 for a user who does not exist, and with -1 for a user whose row another transaction has locked,
-- because the insert would wait for it. The check whether a user exists takes no lock.
DECLARE
    r record;
    ids bigint[] := p_ids;
    got bigint;
BEGIN
    IF cardinality(p_users) = 1 AND NOT p_wait THEN
        SELECT u.id INTO got FROM @users@ u WHERE u.id = p_users[1] FOR KEY SHARE SKIP LOCKED;
        IF got IS NOT NULL THEN
            RETURN ids;
        END IF;
    END IF;
    FOR r IN SELECT k.user_id, k.pair FROM unnest(p_users, p_ids) WITH ORDINALITY AS k (user_id, id, pair)
              WHERE k.id = 0 ORDER BY k.pair LOOP
        got := NULL;
        IF p_wait THEN
            SELECT u.id INTO got FROM @users@ u WHERE u.id = r.user_id FOR KEY SHARE;
        ELSE
            SELECT u.id INTO got FROM @users@ u WHERE u.id = r.user_id FOR KEY SHARE SKIP LOCKED;
        END IF;
        IF got IS NULL THEN
            ids[r.pair] := CASE WHEN EXISTS (SELECT FROM @users@ u WHERE u.id = r.user_id) THEN -1 ELSE -2 END;
        END IF;
    END LOOP;
    RETURN ids;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.lock_pairs_v1(
    p_users bigint[], p_specs integer[], p_names text[], p_wait boolean,
    OUT progress_ids bigint[], OUT progress_levels integer[], OUT license_ids bigint[], OUT license_levels integer[],
    OUT decided_at timestamptz
) LANGUAGE plpgsql AS $body$
-- Lock both rows of pairs, the progress always first (law 6). Read the time of the decision after both locks (law 2).
-- Raises LS201 if the transaction is not READ COMMITTED.
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'LS201', MESSAGE = format(
            'a transaction of levelsync is %s: it must be READ COMMITTED', current_setting('transaction_isolation'));
    END IF;
    IF NOT p_wait THEN
        PERFORM set_config('lock_timeout', '100ms', true);
    END IF;
    SELECT l.ids, l.levels INTO progress_ids, progress_levels
      FROM levelsync.lock_progress_v1(p_users, p_specs, p_names, p_wait) l;
    SELECT l.ids, l.levels INTO license_ids, license_levels
      FROM levelsync.lock_license_v1(p_users, p_specs, p_names, p_wait) l;
    decided_at := clock_timestamp();
END $body$;
