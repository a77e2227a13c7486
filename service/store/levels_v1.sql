-- The functions that lock, write and apply the levels of one table: `user_licenses` or `specialization_progress`.
-- `service.store.functions` creates them for each of the two tables, and replaces each name between two @.
--
-- Every function is VOLATILE, so that each of its statements has its own snapshot. It runs with the caller's rights and
-- settings.
--
-- A pair is a user and a specialization. `p_specs` contains the index of its specialization in `p_names`. The caller
-- passes the pairs in the order of (user, name COLLATE "C"). All transactions lock in this order, so that they do not
-- deadlock. Times are microseconds since 1970. The id 0 means that a row does not exist, and -1 that the function must
-- not write the row. levelsync's own errors have SQLSTATEs of the class LS, which `service.faults` reads.
--
-- A statement whose plan is kept joins by LATERAL with a LIMIT or a lock. PostgreSQL cannot reorder such a join, so it
-- always reads the arrays first.

CREATE OR REPLACE FUNCTION levelsync.lock_@target@_v1(
    p_users bigint[], p_specs integer[], p_names text[], p_wait boolean,
    OUT ids bigint[], OUT levels integer[]
) LANGUAGE plpgsql AS $body$
-- Lock the rows of pairs, and return their ids and levels. A row with the exact name has priority over a row whose name
-- has another case. A NULL level is returned as the lowest integer. The id is -1 for a row that was created after the
-- locking statement began, and without `p_wait` also for a row that another transaction has locked.
DECLARE
    r record;
    id bigint;
    level integer;
    in_other_case boolean;
BEGIN
    PERFORM levelsync.settle_plans_v1();
    IF cardinality(p_users) = 1 THEN
        IF p_wait THEN
            @find_one@ FOR NO KEY UPDATE;
        ELSE
            @find_exact@ FOR NO KEY UPDATE SKIP LOCKED;
            IF id IS NULL THEN
                @find_one@ FOR NO KEY UPDATE SKIP LOCKED;
            END IF;
        END IF;
        ids := ARRAY[coalesce(id, 0)];
        levels := ARRAY[coalesce(level, -2147483648)];
    ELSIF p_wait THEN
        SELECT array_agg(f.id), array_agg(f.level), bool_or(f.other_case) INTO ids, levels, in_other_case FROM (
            SELECT coalesce(l.id, 0) AS id, coalesce(l.level, -2147483648) AS level, l.other_case
              FROM unnest(p_users, p_specs) WITH ORDINALITY AS k (user_id, spec, pair)
              LEFT JOIN LATERAL (@find@ FOR NO KEY UPDATE) l ON true
             ORDER BY k.pair) f;
    ELSE
        SELECT array_agg(f.id), array_agg(f.level), bool_or(f.other_case) INTO ids, levels, in_other_case FROM (
            SELECT coalesce(l.id, 0) AS id, coalesce(l.level, -2147483648) AS level, l.other_case
              FROM unnest(p_users, p_specs) WITH ORDINALITY AS k (user_id, spec, pair)
              LEFT JOIN LATERAL (@find@ FOR NO KEY UPDATE SKIP LOCKED) l ON true
             ORDER BY k.pair) f;
    END IF;
    -- The statements above do not return a row that they skip or that was created after they began. They may return a
    -- row in another case instead. This statement finds the pair's row without a lock.
    IF in_other_case OR array_position(ids, 0) IS NOT NULL THEN
        FOR r IN SELECT k.pair FROM unnest(p_users, p_specs, ids) WITH ORDINALITY AS k (user_id, spec, id, pair)
                  CROSS JOIN LATERAL (@find@) c
                  WHERE c.id <> k.id LOOP
            ids[r.pair] := -1;
        END LOOP;
    END IF;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.write_@target@_v1(
    p_ids bigint[], p_users bigint[], p_specs integer[], p_names text[], p_levels integer[],
    p_created bigint[], p_advanced bigint[], p_defaults jsonb,
    p_rises integer[], p_from integer[], p_to integer[], p_times bigint[], p_reasons text[], p_by bigint,
    OUT watched boolean
) LANGUAGE plpgsql AS $body$
-- Write the levels of pairs whose rows the caller has locked, create the missing rows, and add the history of licenses.
-- `p_rises` contains the index of the pair for each row of the history. `watched` is true if the application has AFTER
-- triggers on the tables, because these may have written other rows. Raises LS101 if a row does not have the decided
-- level after the write, and LS202 if a rule rewrites the writes.
DECLARE
    r record;
    pair integer := 0;
    expected integer;
    done integer;
    made bigint[] := p_ids;
BEGIN
    PERFORM levelsync.settle_plans_v1();
    IF EXISTS (SELECT FROM pg_catalog.pg_rewrite WHERE ev_class = '@table@'::regclass AND ev_type <> '1') THEN
        RAISE EXCEPTION USING ERRCODE = 'LS202', MESSAGE =
            'a rule (CREATE RULE) rewrites the writes of @table@: drop it, levelsync cannot know what is written';
    END IF;
    watched := EXISTS (
        SELECT FROM pg_catalog.pg_trigger
         WHERE tgrelid IN (@watched@) AND NOT tgisinternal AND tgenabled IN ('O', 'A')
           AND tgtype & 66 = 0 AND tgtype & 20 <> 0);
    IF watched THEN
        SET CONSTRAINTS ALL IMMEDIATE;
    END IF;
    IF cardinality(p_ids) = 1 THEN
        expected := (p_ids[1] > 0)::integer;
    ELSE
        expected := (SELECT count(*) FROM unnest(p_ids) AS i (id) WHERE i.id > 0);
    END IF;
    IF expected > 0 THEN
        IF cardinality(p_ids) = 1 THEN
            @update_one@
        ELSE
            -- EXECUTE plans for each call. A plan that was kept from a small table would read a large one from its
            -- beginning.
            EXECUTE $update$@update@$update$ INTO done USING p_ids, p_levels, p_advanced, p_users, p_specs, p_names;
        END IF;
        IF done <> expected THEN
            PERFORM levelsync.refuse_v1('@table@', p_users, p_levels, expected - done);
        END IF;
    END IF;
    IF cardinality(p_ids) = 1 THEN
        expected := (p_ids[1] = 0)::integer;
    ELSE
        expected := (SELECT count(*) FROM unnest(p_ids) AS i (id) WHERE i.id = 0);
    END IF;
    IF expected > 0 THEN
        done := 0;
        IF p_defaults = '{}' THEN
            FOR r IN @insert@ LOOP
                @placed@
            END LOOP;
        ELSE
            FOR r IN EXECUTE (SELECT format($insert$@insert_with_defaults@$insert$,
                                            string_agg(format(', %I', key), ''), string_agg(format(', d.%I', key), ''))
                                FROM jsonb_object_keys(p_defaults) AS key)
                       USING p_ids, p_users, p_specs, p_names, p_levels, p_created, p_advanced, p_defaults LOOP
                @placed@
            END LOOP;
        END IF;
        IF done <> expected THEN
            PERFORM levelsync.refuse_v1('@table@', p_users, p_levels, expected - done);
        END IF;
    END IF;
    @history@
    IF watched AND EXISTS (
        SELECT FROM unnest(made, p_levels) AS v (id, level)
          LEFT JOIN LATERAL (SELECT t.current_level AS level FROM @table@ t WHERE t.id = v.id LIMIT 1) w ON true
         WHERE v.id > 0 AND w.level IS DISTINCT FROM v.level) THEN
        PERFORM levelsync.refuse_v1('@table@', p_users, p_levels, 1);
    END IF;
END $body$;

CREATE OR REPLACE FUNCTION levelsync.apply_@target@_v1(
    p_topics text[], p_partitions integer[], p_topic_ids text[], p_expected bigint[], p_first bigint[],
    p_next bigint[], p_epochs integer[], p_curriculum text, p_names text[], p_users bigint[], p_specs integer[],
    p_pairs integer[], p_slots integer[], p_levels integer[], p_times bigint[], p_decided bigint[], p_reasons text[],
    p_defaults jsonb, p_way text,
    OUT status text, OUT positions bigint[], OUT topic_ids text[], OUT outcomes text, OUT refusals jsonb
) LANGUAGE plpgsql AS $body$
-- Apply the events of a batch, or of a part of it: check the positions, lock, decide, write (laws 1 to 3).
-- For each event, `p_pairs` contains the index of its pair, and `p_slots` the index of its partition. `p_way` is one of
--   quick    the call is a transaction of its own and moves the positions. It writes nothing if dead letters have to be
--            written or closed
--   whole    the call is a part of a transaction that also writes dead letters and then moves the positions
--   careful  as whole, but record by record. A record that the database refuses is left out
--   waiting  as careful, but the call waits for rows that another transaction has locked
-- `status` is one of
--   done     every event has an outcome
--   moved    a position or a topic id is not the expected one, so the call wrote nothing
--   letters  dead letters have to be written or closed, so the call wrote nothing (quick only)
-- `outcomes` contains a letter for each event: a applied, c created, e equal, b ahead, s superseded, u unknown user,
-- r refused (`refusals` contains the error), h held: another transaction has locked the row or has just created it. The
-- position of a partition with a held event does not move.
DECLARE
    record_by_record boolean := p_way IN ('careful', 'waiting');
    ids bigint[];          -- for each pair: its row's id, 0 without a row, -1 held, -2 without a row and a user
    written bigint[];      -- for each pair: the id of the row to write, 0 to create a row, -1 to write nothing
    levels integer[];
    fences bigint[];
    created bigint[];
    advanced bigint[];
    kept text[] := '{}';
    rises integer[] := '{}';
    rises_from integer[] := '{}';
    rises_to integer[] := '{}';
    rises_at bigint[] := '{}';
    rises_why text[] := '{}';
    stopped boolean[] := array_fill(false, ARRAY[cardinality(p_topics)]);
    event integer := 0;
    pair integer;
    before integer;
    outcome text;
    reason text;
    one record;
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION USING ERRCODE = 'LS201', MESSAGE = format(
            'a transaction of levelsync is %s: it must be READ COMMITTED', current_setting('transaction_isolation'));
    END IF;
    SELECT p.positions, p.topic_ids INTO positions, topic_ids
      FROM levelsync.lock_positions_v1(p_topics, p_partitions) p;
    IF positions <> p_expected OR topic_ids <> p_topic_ids AND EXISTS (
           SELECT FROM unnest(topic_ids, p_topic_ids) AS t (stored, ours)
            WHERE t.stored <> '' AND t.ours <> '' AND t.stored <> t.ours) THEN
        status := 'moved';
        RETURN;
    END IF;
    IF p_way = 'quick' THEN
        FOR slot IN 1 .. cardinality(p_topics) LOOP
            IF p_first[slot] IS NOT NULL AND EXISTS (
                   SELECT FROM levelsync.dead_letters d
                    WHERE d.topic = p_topics[slot] AND d.partition = p_partitions[slot]
                      AND d."offset" >= p_first[slot] AND d."offset" < p_next[slot] AND d.resolved_at IS NULL) THEN
                status := 'letters';
                RETURN;
            END IF;
        END LOOP;
    END IF;
    IF p_way <> 'waiting' THEN
        PERFORM set_config('lock_timeout', '100ms', true);
    END IF;
    IF record_by_record THEN
        SET CONSTRAINTS ALL IMMEDIATE;
    END IF;
    IF cardinality(p_users) > 0 THEN
        SELECT l.ids, l.levels INTO ids, levels
          FROM levelsync.lock_@target@_v1(p_users, p_specs, p_names, p_way = 'waiting') l;
        fences := levelsync.read_fences_v1(p_users, p_specs, p_names);
        IF array_position(ids, 0) IS NOT NULL THEN
            ids := levelsync.lock_users_v1(p_users, ids, p_way = 'waiting');
        END IF;
        written := array_fill(-1::bigint, ARRAY[cardinality(ids)]);
        created := array_fill(0::bigint, ARRAY[cardinality(ids)]);
        advanced := created;
    END IF;
    FOREACH reason IN ARRAY p_reasons LOOP
        event := event + 1;
        pair := p_pairs[event];
        before := CASE WHEN levels[pair] = -2147483648 THEN 0 ELSE levels[pair] END;
        IF ids[pair] = -1 THEN
            outcome := 'h';
            stopped[p_slots[event]] := true;
        ELSIF p_decided[event] <= fences[pair] THEN
            outcome := 's';
        ELSIF ids[pair] = -2 THEN
            outcome := 'u';
        ELSIF p_levels[event] = before THEN
            outcome := 'e';
        ELSIF p_levels[event] < before THEN
            outcome := 'b';
        ELSIF record_by_record THEN
            SELECT w.* INTO one
              FROM levelsync.write_one_@target@_v1(ids[pair], levels[pair], p_users[pair], p_names[p_specs[pair]],
                       p_levels[event], p_times[event], p_decided[event], reason, p_defaults, p_way = 'waiting') w;
            outcome := one.outcome;
            ids[pair] := one.id;
            levels[pair] := one.level;
            IF outcome = 'r' THEN
                refusals := coalesce(refusals, '[]') || (one.fault || jsonb_build_object('event', event));
            ELSIF outcome = 'h' THEN
                stopped[p_slots[event]] := true;
            END IF;
        ELSE
            outcome := CASE WHEN ids[pair] = 0 AND written[pair] = -1 THEN 'c' ELSE 'a' END;
            IF written[pair] = -1 THEN
                created[pair] := p_times[event];
                written[pair] := ids[pair];
            END IF;
            rises := array_append(rises, pair);
            rises_from := array_append(rises_from, before);
            rises_to := array_append(rises_to, p_levels[event]);
            rises_at := array_append(rises_at, p_times[event]);
            rises_why := array_append(rises_why, reason);
            levels[pair] := p_levels[event];
            advanced[pair] := p_times[event];
        END IF;
        kept := array_append(kept, outcome);
    END LOOP;
    outcomes := array_to_string(kept, '');
    IF p_way = 'quick' AND position('u' IN outcomes) > 0 THEN
        status := 'letters';
        RETURN;
    END IF;
    IF cardinality(rises) > 0 THEN
        PERFORM levelsync.write_@target@_v1(written, p_users, p_specs, p_names, levels, created, advanced, p_defaults,
                                            rises, rises_from, rises_to, rises_at, rises_why, NULL);
    END IF;
    -- Check after the writes and under all locks. The error undoes writes that were decided with an older curriculum.
    IF NOT levelsync.curriculum_is_v1(p_curriculum) THEN
        RAISE EXCEPTION USING ERRCODE = 'LS001', MESSAGE = 'the specializations have changed: decide again';
    END IF;
    IF p_way = 'quick' THEN
        PERFORM levelsync.move_positions_v1(p_topics, p_partitions, p_next, p_epochs, stopped);
    END IF;
    status := 'done';
END $body$;

CREATE OR REPLACE FUNCTION levelsync.write_one_@target@_v1(
    p_id bigint, p_level integer, p_user bigint, p_name text, p_to integer, p_time bigint, p_decided bigint,
    p_reason text, p_defaults jsonb, p_wait boolean,
    OUT outcome text, OUT fault jsonb, OUT id bigint, OUT level integer
) LANGUAGE plpgsql AS $body$
-- Apply one event to a pair whose row the caller has locked. If the database refuses the write, undo it and return the
-- outcome r. After a violation of a unique constraint or a foreign key, first lock and decide again in a new snapshot
-- (law 1). If the same constraint refuses the event again, return the refusal.
DECLARE
    before text := '';
    state text;
    index_name text;
    said text;
    more text;
    ids bigint[];
    levels integer[];
BEGIN
    id := p_id;
    level := p_level;
    LOOP
        BEGIN
            outcome := CASE WHEN id = 0 THEN 'c' ELSE 'a' END;
            PERFORM levelsync.write_@target@_v1(
                ARRAY[id], ARRAY[p_user], ARRAY[1], ARRAY[p_name], ARRAY[p_to], ARRAY[p_time], ARRAY[p_time], p_defaults,
                ARRAY[1], ARRAY[CASE WHEN level = -2147483648 THEN 0 ELSE level END], ARRAY[p_to], ARRAY[p_time],
                ARRAY[p_reason], NULL);
            IF id = 0 THEN
                SELECT l.ids[1] INTO id FROM levelsync.lock_@target@_v1(ARRAY[p_user], ARRAY[1], ARRAY[p_name], true) l;
            END IF;
            level := p_to;
            RETURN;
        EXCEPTION WHEN data_exception OR integrity_constraint_violation OR with_check_option_violation
                       OR raise_exception OR SQLSTATE 'LS101' THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, index_name = CONSTRAINT_NAME, said = MESSAGE_TEXT,
                                    more = PG_EXCEPTION_DETAIL;
        END;
        IF state = '23502' THEN  -- a column that levelsync does not know has no value: a fault of the installation
            RAISE EXCEPTION USING ERRCODE = state, MESSAGE = said, DETAIL = more;
        END IF;
        fault := jsonb_build_object('sqlstate', state, 'constraint', index_name, 'message', said, 'detail', more);
        outcome := 'r';
        IF state NOT IN ('23505', '23503') OR before = state || index_name THEN
            RETURN;
        END IF;
        before := state || index_name;
        SELECT l.ids, l.levels INTO ids, levels
          FROM levelsync.lock_@target@_v1(ARRAY[p_user], ARRAY[1], ARRAY[p_name], p_wait) l;
        IF ids[1] = 0 THEN
            ids := levelsync.lock_users_v1(ARRAY[p_user], ids, p_wait);
        END IF;
        id := ids[1];
        level := levels[1];
        outcome := CASE
            WHEN id = -1 THEN 'h'
            WHEN p_decided <= (levelsync.read_fences_v1(ARRAY[p_user], ARRAY[1], ARRAY[p_name]))[1] THEN 's'
            WHEN id = -2 THEN 'u'
            WHEN p_to = greatest(level, 0) THEN 'e'
            WHEN p_to < greatest(level, 0) THEN 'b' END;
        IF outcome IS NOT NULL THEN
            RETURN;
        END IF;
    END LOOP;
END $body$;
