-- brain.watch streams the changes of a table; brain.unwatch stops that.

SET LOCAL ROLE brain_owner;

-- The relation of a name with its schema, null if there is none. Unlike to_regclass it does not fail where
-- the role may not use the schema.
CREATE OR REPLACE FUNCTION brain.relation_of(name text) RETURNS oid LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.oid FROM parse_ident(name) part
      JOIN pg_namespace n ON n.nspname = part[1]::name
      JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = part[2]::name
$$;
REVOKE ALL ON FUNCTION brain.relation_of FROM PUBLIC;

CREATE OR REPLACE FUNCTION brain.primary_key(relation regclass) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(a.attname::text ORDER BY k.position)
      FROM pg_index i
     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, position)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts  -- not what is INCLUDEd
$$;
REVOKE ALL ON FUNCTION brain.primary_key FROM PUBLIC;

CREATE OR REPLACE FUNCTION brain.missing_columns(relation regclass, columns text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(coalesce(c.name, 'NULL'), ', ' ORDER BY c.number)
      FROM unnest(columns) WITH ORDINALITY c (name, number)
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation
                        AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped)
$$;
REVOKE ALL ON FUNCTION brain.missing_columns FROM PUBLIC;

CREATE OR REPLACE FUNCTION brain.column_names(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(a.attname, ', ' ORDER BY a.attnum) FROM pg_attribute a
     WHERE a.attrelid = relation AND a.attnum > 0 AND NOT a.attisdropped
$$;
REVOKE ALL ON FUNCTION brain.column_names FROM PUBLIC;

-- A relation with its partitions, and with theirs. pg_partition_tree locks each of them, and waits for one that
-- somebody else has locked.
CREATE OR REPLACE FUNCTION brain.partition_tree(relation regclass) RETURNS SETOF oid LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE tree (id) AS (
        SELECT relation::oid
         UNION
        SELECT i.inhrelid FROM tree JOIN pg_inherits i ON i.inhparent = tree.id AND NOT i.inhdetachpending
          JOIN pg_class c ON c.oid = i.inhrelid AND c.relispartition)
    SELECT id FROM tree
$$;
REVOKE ALL ON FUNCTION brain.partition_tree FROM PUBLIC;

-- The names of the AFTER ROW triggers that the application has on the table or on one of its partitions.
-- A trigger that writes rows of the same table makes Brain's trigger see the changes in another order than
-- they were made.
CREATE OR REPLACE FUNCTION brain.row_triggers(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(DISTINCT quote_ident(t.tgname), ', ')
      FROM pg_trigger t
     WHERE t.tgrelid IN (SELECT brain.partition_tree(relation)) AND NOT t.tgisinternal
       AND NOT EXISTS (SELECT FROM pg_proc p WHERE p.oid = t.tgfoid AND p.pronamespace = 'brain'::regnamespace
                          AND p.proname ~ '^capture_[0-9]+$')
       AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0
$$;
REVOKE ALL ON FUNCTION brain.row_triggers FROM PUBLIC;

-- The numbers and types of columns by their names, by which it is found later what has become of them.
CREATE OR REPLACE FUNCTION brain.attributes(relation regclass, columns text[]) RETURNS jsonb LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(jsonb_object_agg(a.attname, jsonb_build_array(a.attnum, format_type(a.atttypid, NULL))), '{}')
      FROM pg_attribute a WHERE a.attrelid = relation AND a.attname = ANY (columns) AND NOT a.attisdropped
$$;
REVOKE ALL ON FUNCTION brain.attributes FROM PUBLIC;

-- A word of a command line.
CREATE OR REPLACE FUNCTION brain.shell_word(word text) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN word ~ '^[A-Za-z0-9_.,:=/-]+$' THEN word
                ELSE '''' || replace(word, '''', $quote$'\''$quote$) || '''' END
$$;
REVOKE ALL ON FUNCTION brain.shell_word FROM PUBLIC;

-- The columns that the trigger function reads.
CREATE OR REPLACE FUNCTION brain.read_columns(watched brain.watched) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT watched.columns || watched.key_columns || ARRAY(SELECT jsonb_object_keys(watched.rules))
$$;
REVOKE ALL ON FUNCTION brain.read_columns FROM PUBLIC;

-- What has become of a column: its name by now, null if it was dropped.
CREATE OR REPLACE FUNCTION brain.present_name(watched brain.watched, name text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT a.attname::text FROM pg_attribute a
     WHERE a.attrelid = watched.relation AND a.attnum > 0 AND NOT a.attisdropped
       AND (a.attname = name
            OR (a.attnum = (watched.attributes -> name ->> 0)::integer
                AND a.attname <> ALL (brain.read_columns(watched))))
     ORDER BY a.attname = name DESC LIMIT 1
$$;
REVOKE ALL ON FUNCTION brain.present_name FROM PUBLIC;

-- The command that watches a table in the way of a watch, with those of the columns that are still there.
CREATE OR REPLACE FUNCTION brain.watch_command(watched brain.watched, relation text) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(' ', 'brain watch', brain.shell_word(relation), '--channel', brain.shell_word(watched.channel),
               '--columns ' || brain.shell_word((
                   SELECT string_agg(coalesce(brain.present_name(watched, name), name), ',' ORDER BY number)
                     FROM unnest(watched.columns) WITH ORDINALITY c (name, number)
                    WHERE NOT EXISTS (SELECT FROM pg_class WHERE oid = watched.relation)
                       OR brain.present_name(watched, name) IS NOT NULL)),
               (SELECT string_agg('--type ' || brain.shell_word(key || '=' || value), ' ' ORDER BY key)
                  FROM jsonb_each_text(watched.types)),
               CASE WHEN watched.is_deferred THEN '--timing deferred' END,
               CASE WHEN watched.is_replicated THEN '--replicated' END,
               CASE WHEN watched.column_bytes <> 262144 THEN '--column-bytes ' || watched.column_bytes END,
               CASE WHEN watched.row_bytes <> 1048576 THEN '--row-bytes ' || watched.row_bytes END,
               CASE WHEN watched.row_security = 'ignored' THEN '--row-security ignored' END)
$$;
REVOKE ALL ON FUNCTION brain.watch_command FROM PUBLIC;

-- Why a relation is none that can be watched, with the way out; null if it is one.
CREATE OR REPLACE FUNCTION brain.kind_problem(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE read (id) AS (  -- by a view, and by the views that it reads from
        SELECT relation::oid
         UNION
        SELECT d.refobjid
          FROM read JOIN pg_class v ON v.oid = read.id AND v.relkind IN ('v', 'm')
          JOIN pg_rewrite r ON r.ev_class = v.oid
          JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
                          AND d.refclassid = 'pg_class'::regclass)
    SELECT CASE
        WHEN c.oid IS NULL THEN format('%s cannot be watched: there is no such table', coalesce(relation::text, 'NULL'))
        WHEN c.relnamespace = 'brain'::regnamespace
            THEN format('%s cannot be watched: it is one of Brain''s own tables', relation)
        WHEN n.nspname IN ('pg_catalog', 'information_schema', 'pg_toast')
            THEN format('%s cannot be watched: it is one of PostgreSQL''s own tables', relation)
        WHEN c.relkind IN ('v', 'm')
            THEN format('%s cannot be watched: it is a %s, and triggers do not see what its query returns: '
                        'watch the tables that it reads from%s, or define a feed with its query '
                        '(brain.define_feed)', relation,
                        CASE c.relkind WHEN 'v' THEN 'view' ELSE 'materialized view' END,
                        (SELECT ' (' || string_agg(r.id::regclass::text, ', ' ORDER BY r.id::regclass::text) || ')'
                           FROM read r JOIN pg_class t ON t.oid = r.id AND t.relkind IN ('r', 'p')))
        WHEN c.relkind = 'f'
            THEN format('%s cannot be watched: it is a foreign table, and triggers do not see what others write '
                        'to it: watch it in the database that it is stored in', relation)
        WHEN c.relkind NOT IN ('r', 'p')
            THEN format('%s cannot be watched: it is no table', relation)
        WHEN c.relpersistence = 't'
            THEN format('%s cannot be watched: it is a temporary table, which only its own session sees: watch a '
                        'permanent one', relation)
        ELSE (SELECT format('%s cannot be watched: it is a partition of %s, which is watched on the channel %s, '
                            'its own changes too: subscribe to that, or end it first: brain unwatch %s',
                            c.oid::regclass, w.relation, w.channel, brain.shell_word(w.relation::text))
                FROM pg_partition_ancestors(c.oid) a JOIN brain.watched w ON w.relation = a.relid
               WHERE a.relid <> c.oid
                 AND NOT EXISTS (SELECT FROM brain.watched own WHERE own.relation = c.oid) LIMIT 1)
        END
      FROM (SELECT) one
      LEFT JOIN pg_class c ON c.oid = relation
      LEFT JOIN pg_namespace n ON n.oid = c.relnamespace
$$;
REVOKE ALL ON FUNCTION brain.kind_problem FROM PUBLIC;

-- Whether PostgreSQL shows rows of the table, or of a partition, to some roles and not to others.
CREATE OR REPLACE FUNCTION brain.has_row_security(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_class c
                    WHERE c.relrowsecurity AND c.oid IN (SELECT brain.partition_tree(relation)))
$$;
REVOKE ALL ON FUNCTION brain.has_row_security FROM PUBLIC;

-- The commands that drop the triggers of a watch, null if there are none.
CREATE OR REPLACE FUNCTION brain.drop_commands(watch integer, relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('DROP TRIGGER %I ON %s', t.tgname, relation), '; ' ORDER BY t.tgname) FROM pg_trigger t
     WHERE t.tgrelid = relation AND t.tgparentid = 0 AND t.tgfoid = brain.capture_of(watch)
$$;
REVOKE ALL ON FUNCTION brain.drop_commands FROM PUBLIC;

CREATE OR REPLACE FUNCTION brain.is_owner(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT pg_has_role(c.relowner, 'USAGE') FROM pg_class c WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION brain.is_owner FROM PUBLIC;

-- The command that creates a trigger of a watch, or replaces it, whatever it is called by now.
CREATE OR REPLACE FUNCTION brain.create_command(watched brain.watched, name text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(CASE WHEN name = '!brain_2_truncate_'
                       THEN 'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION %s'
                       WHEN watched.is_deferred
                       THEN 'CREATE CONSTRAINT TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s '
                            'DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION %s'
                       ELSE 'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s '
                            'FOR EACH ROW EXECUTE FUNCTION %s' END,
                  coalesce((SELECT t.tgname::text FROM pg_trigger t
                             WHERE t.tgrelid = watched.relation AND t.tgfoid = brain.capture_of(watched.id)
                               AND t.tgtype & 1 = CASE name WHEN '!brain_1_row_' THEN 1 ELSE 0 END
                             ORDER BY t.tgname LIMIT 1), name || watched.id),
                  watched.relation, format('brain.%I()', 'capture_' || watched.id))
$$;
REVOKE ALL ON FUNCTION brain.create_command FROM PUBLIC;

-- Waits until nobody writes to a watched table, and keeps it so until the transaction ends. To replace a trigger is to
-- lock the table too, for which its TRIGGER privilege suffices.
CREATE OR REPLACE FUNCTION brain.lock_writers(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    needed CONSTANT text := (
        SELECT CASE WHEN watched.is_replicated OR (watched.is_deferred AND c.relkind = 'p') THEN 'UPDATE'
                    WHEN NOT has_table_privilege(c.oid, 'TRIGGER') THEN 'TRIGGER' END
          FROM pg_class c WHERE c.oid = watched.relation);
BEGIN
    IF has_table_privilege(watched.relation, 'UPDATE, DELETE, TRUNCATE') THEN
        EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', watched.relation);
    ELSIF needed IS NOT NULL THEN
        RAISE EXCEPTION 'role % may not lock %: its owner can allow it: GRANT % ON % TO %', quote_ident(current_user),
              watched.relation, needed, watched.relation, quote_ident(current_user)
              USING ERRCODE = 'insufficient_privilege';
    ELSE
        EXECUTE brain.create_command(watched, CASE WHEN watched.is_deferred THEN '!brain_2_truncate_'
                                                   ELSE '!brain_1_row_' END);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.lock_writers FROM PUBLIC;

-- Has a watch have its triggers, and the table not be written to until the transaction ends.
CREATE OR REPLACE FUNCTION brain.set_triggers(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
    drop_commands CONSTANT text := brain.drop_commands(watched.id, watched.relation);
BEGIN
    IF brain.trigger_problem(watched) IS NULL
       AND EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid = watched.relation AND t.tgfoid = brain.capture_of(watched.id)
                      AND t.tgtype & 1 = 1 AND t.tgdeferrable = watched.is_deferred) THEN
        PERFORM brain.lock_writers(watched);
        RETURN;
    ELSIF NOT brain.is_owner(watched.relation) AND (watched.is_replicated OR drop_commands IS NOT NULL) THEN
        RAISE EXCEPTION '%', CASE WHEN watched.is_replicated
                  THEN format('to watch %s with --replicated needs the rights of its owner', watched.relation)
                  ELSE format('the triggers of %s have to be created anew, and only its owner may drop the present '
                              'ones: %s', watched.relation, drop_commands) END
              USING ERRCODE = 'insufficient_privilege';
    END IF;
    IF drop_commands IS NOT NULL THEN
        EXECUTE drop_commands;
    END IF;
    FOREACH name IN ARRAY ARRAY['!brain_1_row_', '!brain_2_truncate_'] LOOP
        EXECUTE brain.create_command(watched, name);
        IF watched.is_replicated THEN
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', watched.relation, name || watched.id);
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.set_triggers FROM PUBLIC;

-- Has the capture function of a former watch do nothing, as only the owner of a table may drop its triggers.
CREATE OR REPLACE FUNCTION brain.retire_capture(watch integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    EXECUTE format('CREATE OR REPLACE FUNCTION brain.%I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER '
                   'SET search_path = pg_catalog, pg_temp AS ''BEGIN RETURN NULL; END''', 'capture_' || watch);
END $$;
REVOKE ALL ON FUNCTION brain.retire_capture FROM PUBLIC;

-- Removes the watches of tables that were dropped, and the capture functions without a watch: one that has a trigger
-- somewhere does nothing any more, and one that others use in another way stays.
CREATE OR REPLACE FUNCTION brain.unwatch_dropped() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
    is_needed boolean;
    users text;
BEGIN
    FOR watch IN DELETE FROM brain.watched w
                  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation) RETURNING w.id LOOP
        PERFORM brain.let_read('watch ' || watch, '{}', NULL), brain.append_watch_change('unwatched', watch);
    END LOOP;
    FOR watch, is_needed IN
        SELECT substr(p.proname, 9)::integer, EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid)
          FROM pg_proc p
         WHERE p.pronamespace = 'brain'::regnamespace AND p.proname ~ '^capture_[0-9]+$'
           AND NOT EXISTS (SELECT FROM brain.watched w WHERE p.proname = 'capture_' || w.id)
           AND (p.prosrc <> 'BEGIN RETURN NULL; END'
                OR NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgfoid = p.oid))
    LOOP
        IF is_needed THEN
            PERFORM brain.retire_capture(watch);
            CONTINUE;
        END IF;
        BEGIN
            EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
        EXCEPTION WHEN dependent_objects_still_exist THEN
            GET STACKED DIAGNOSTICS users = PG_EXCEPTION_DETAIL;
            RAISE WARNING 'a function that nothing needs any more stays: %', users;
        END;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.unwatch_dropped FROM PUBLIC;

-- Tells all nodes that a watch has changed: they know the columns of each.
CREATE OR REPLACE FUNCTION brain.append_watch_change(type text, watch integer) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.append('brain.watches', type, 'P', NULL, json_build_object('watch', watch)::text, NULL, '')
$$;
REVOKE ALL ON FUNCTION brain.append_watch_change FROM PUBLIC;

-- What follows a change of a watch: its columns can be read, clients and nodes hear of it. Returns its limits.
CREATE OR REPLACE FUNCTION brain.announce_watch(watched brain.watched, has_new_rules boolean) RETURNS text[]
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    limits text[];
BEGIN
    PERFORM brain.let_read_watched(watched);
    limits := brain.limits(watched);
    UPDATE brain.watched w SET known_limits = limits WHERE w.id = watched.id;
    IF has_new_rules THEN
        PERFORM brain.append_reset(watched.channel, 'the row rules of the channel have changed');
    END IF;
    PERFORM brain.append_watch_change('watched', watched.id);
    RETURN limits;
END $$;
REVOKE ALL ON FUNCTION brain.announce_watch FROM PUBLIC;

-- The table that was watched last on each channel, by which it is found that a channel changes hands.
CREATE TABLE IF NOT EXISTS brain.channel_tables (
    channel    text PRIMARY KEY,
    relation   oid  NOT NULL,
    table_name text NOT NULL
);

-- Streams every change of a table to a channel, with the listed columns and no others.
--
-- types: the types of its messages, {"insert": "order_placed", "update": ..., "delete": ..., "truncate": ...};
--     the wire format derives those that are left out.
-- timing: 'immediate' or 'deferred' to the end of the transaction. The default is deferred where the
--     table has AFTER ROW triggers of its own. The price of deferring: ALTER TABLE, CREATE INDEX, DROP TABLE
--     and TRUNCATE after a change in the same transaction need SET CONSTRAINTS ALL IMMEDIATE before them.
-- replicated: true to stream what logical replication applies here; triggers do not fire for that
--     otherwise.
-- rules, exempt: who may see which rows, as brain.restrict has them; those that there are stay if null.
-- row_security: 'ignored' to watch a table with row-level security without row rules: its policies do not
--     apply to events and snapshots.
-- column_bytes: a larger value is not logged; the event names its column in `omitted`.
-- row_bytes: of the values of an event together, the former ones too; above it the largest are omitted.
--
-- What cannot work is an exception, and what works with a limit is a warning, each with the way out.
--
-- To be called again when any of that changes: a later call replaces the whole watch but its row rules, and what
-- is left out is the default again. It locks the table for a moment, and needs the table's TRIGGER privilege and
-- membership in brain_owner; for another timing, and with replicated, its owner's rights. The names of the triggers
-- sort before letters: if they fired after a trigger of the application that writes the row again, the older image
-- would be logged last.
CREATE OR REPLACE FUNCTION brain.watch(relation regclass, channel text, columns text[], types jsonb DEFAULT '{}',
                            timing text DEFAULT NULL, replicated boolean DEFAULT false,
                            column_bytes integer DEFAULT 262144, row_bytes integer DEFAULT 1048576,
                            rules jsonb DEFAULT NULL, exempt jsonb DEFAULT NULL, row_security text DEFAULT 'refused')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    keys CONSTANT text[] := brain.primary_key(relation);
    unknown CONSTANT text := brain.missing_columns(relation, columns);
    kind_problem CONSTANT text := brain.kind_problem(relation);
    without_triggers CONSTANT text := (
        SELECT string_agg(id::regclass::text, ', ' ORDER BY id::regclass::text)
          FROM brain.partition_tree(relation) t (id)
         WHERE NOT has_table_privilege(id, 'TRIGGER'));
    invalid_types CONSTANT text := (
        SELECT string_agg(name, ', ') FROM jsonb_each(types) t (name, value)
         WHERE name NOT IN ('insert', 'update', 'delete', 'truncate')
            OR jsonb_typeof(value) <> 'string' OR length(value #>> '{}') NOT BETWEEN 1 AND 255);
    is_deferred CONSTANT boolean := coalesce(timing = 'deferred', brain.row_triggers(relation) IS NOT NULL);
    channel_owner CONSTANT regclass := (
        SELECT w.relation FROM brain.watched w
         WHERE w.channel = watch.channel AND w.relation <> watch.relation
           AND EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation));
    virtual_columns CONSTANT text := (
        SELECT string_agg(a.attname, ', ') FROM pg_attribute a
         WHERE a.attrelid = relation AND a.attname = ANY (columns) AND a.attgenerated = 'v');
    repeated_columns CONSTANT text := (
        SELECT string_agg(name, ', ')
          FROM (SELECT name FROM unnest(columns) name GROUP BY 1 HAVING count(*) > 1) repeated);
    former CONSTANT brain.watched := (SELECT w FROM brain.watched w WHERE w.relation = watch.relation);
    row_rules CONSTANT jsonb := coalesce(rules, former.rules, '{}');
    exemption CONSTANT jsonb := coalesce(exempt, former.exempt, '{}');
    has_new_rules CONSTANT boolean := (row_rules, exemption)
        IS DISTINCT FROM (coalesce(former.rules, '{}'), coalesce(former.exempt, '{}'))
        OR EXISTS (SELECT FROM jsonb_object_keys(row_rules) r
                    WHERE former.attributes -> r ->> 1
                          IS DISTINCT FROM brain.attributes(relation, ARRAY[r]) -> r ->> 1);
    rule_problem CONSTANT text := brain.rule_problem(relation, channel, row_rules, exemption);
    former_owner CONSTANT text := (
        SELECT o.table_name FROM brain.channel_tables o
         WHERE o.channel = watch.channel AND o.relation <> watch.relation AND o.table_name <> watch.relation::text);
    watched brain.watched;
    limit_found text;
BEGIN
    IF kind_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', kind_problem;
    ELSIF without_triggers IS NOT NULL THEN
        RAISE EXCEPTION 'role % may not create triggers on %: its owner can allow it: GRANT TRIGGER ON % TO %',
              quote_ident(current_user), without_triggers, without_triggers, quote_ident(current_user)
              USING ERRCODE = 'insufficient_privilege';
    ELSIF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key, by which clients know its rows: add one: '
                        'ALTER TABLE % ADD PRIMARY KEY (...)', relation, relation;
    ELSIF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %; it has %', relation, unknown, brain.column_names(relation);
    ELSIF repeated_columns IS NOT NULL THEN
        RAISE EXCEPTION 'column % of % is listed more than once', repeated_columns, relation;
    ELSIF virtual_columns IS NOT NULL THEN
        RAISE EXCEPTION 'triggers do not see the virtual column % of %: list the columns that it is computed from, '
                        'or have it STORED', virtual_columns, relation;
    ELSIF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'no column of % is listed', relation;
    ELSIF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'the channel for % has no name', relation;
    ELSIF length(channel) > 255 THEN
        RAISE EXCEPTION 'the name of a channel has at most 255 characters, not %', length(channel);
    ELSIF starts_with(channel, 'brain.') THEN
        RAISE EXCEPTION 'the channel % is Brain''s own', channel;
    ELSIF channel_owner IS NOT NULL THEN
        RAISE EXCEPTION 'the channel % is that of table %', channel, channel_owner
              USING HINT = format('choose another channel, or end that watch: brain unwatch %s',
                                  brain.shell_word(channel_owner::text));
    ELSIF invalid_types IS NOT NULL THEN
        RAISE EXCEPTION 'types names messages for insert, update, delete and truncate; not %', invalid_types;
    ELSIF timing NOT IN ('immediate', 'deferred') THEN
        RAISE EXCEPTION 'timing is immediate or deferred, not %', timing;
    ELSIF column_bytes IS NULL OR column_bytes NOT BETWEEN 8192 AND 16777216 THEN
        RAISE EXCEPTION 'column_bytes is a number from 8192 to 16777216, not %', column_bytes;
    ELSIF row_bytes IS NULL OR row_bytes NOT BETWEEN 8192 AND 16777216 THEN
        RAISE EXCEPTION 'row_bytes is a number from 8192 to 16777216, not %', row_bytes;
    ELSIF row_security IS NULL OR row_security NOT IN ('refused', 'ignored') THEN
        RAISE EXCEPTION 'row_security is refused or ignored, not %', row_security;
    ELSIF rule_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', rule_problem;
    ELSIF row_rules = '{}' AND row_security = 'refused' AND brain.has_row_security(relation) THEN
        RAISE EXCEPTION '% has row-level security, which does not apply to events and snapshots: give row rules '
                        '(rules => ''{"customer_id": "sub"}''), or row_security => ''ignored'' '
                        '(--row-security ignored): then each client that may read the channel gets all rows', relation;
    END IF;
    PERFORM brain.unwatch_dropped();
    INSERT INTO brain.watched AS w (relation, channel, key_columns, columns, types, is_deferred, is_replicated,
                                    column_bytes, row_bytes, table_name, attributes, rules, exempt, rule_number,
                                    row_security)
    VALUES (relation, channel, keys, columns, types, is_deferred, replicated, column_bytes, row_bytes,
            relation::text,
            brain.attributes(relation, keys || columns || ARRAY(SELECT jsonb_object_keys(row_rules))),
            row_rules, exemption,
            CASE WHEN has_new_rules THEN nextval('brain.rule_number') ELSE coalesce(former.rule_number, 0) END,
            row_security)
    ON CONFLICT ON CONSTRAINT watched_relation_key DO UPDATE
       SET channel = excluded.channel, key_columns = excluded.key_columns, columns = excluded.columns,
           types = excluded.types, is_deferred = excluded.is_deferred, is_replicated = excluded.is_replicated,
           column_bytes = excluded.column_bytes, row_bytes = excluded.row_bytes, table_name = excluded.table_name,
           attributes = excluded.attributes, rules = excluded.rules, exempt = excluded.exempt,
           rule_number = excluded.rule_number, row_security = excluded.row_security
    RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched), brain.set_triggers(watched);
    IF former_owner IS NOT NULL THEN
        RAISE WARNING 'the channel % was that of table %: those who subscribe to it get rows of % from now on',
              channel, former_owner, relation;
    END IF;
    INSERT INTO brain.channel_tables VALUES (channel, relation, relation::text)
    ON CONFLICT ON CONSTRAINT channel_tables_pkey DO UPDATE
       SET relation = excluded.relation, table_name = excluded.table_name;
    IF former.channel <> channel THEN
        RAISE WARNING 'table % was watched on the channel %, which gets no changes any more', relation,
              former.channel;
    END IF;
    IF NOT (former.columns @> columns AND former.columns <@ columns) THEN
        RAISE WARNING 'table % was watched with other columns: %', relation, concat_ws('; ',
            'no longer sent: ' || (SELECT string_agg(c, ', ') FROM unnest(former.columns) c WHERE c <> ALL (columns)),
            'new: ' || (SELECT string_agg(c, ', ') FROM unnest(columns) c WHERE c <> ALL (former.columns)));
    END IF;
    IF former.types <> types THEN
        RAISE WARNING 'table % was watched with other types of messages: %', relation, (
            SELECT string_agg(format('%s was %s, and is %s', name, coalesce(former.types ->> name, 'the default'),
                                     coalesce(types ->> name, 'the default')), '; ' ORDER BY place)
              FROM unnest('{insert,update,delete,truncate}'::text[]) WITH ORDINALITY o (name, place)
             WHERE former.types ->> name IS DISTINCT FROM types ->> name);
    END IF;
    FOREACH limit_found IN ARRAY brain.announce_watch(watched, has_new_rules) LOOP
        RAISE WARNING '%', limit_found;
    END LOOP;
END $watch$;
REVOKE ALL ON FUNCTION brain.watch FROM PUBLIC;

-- Stops watching a table. Events that are in the log already are still sent.
CREATE OR REPLACE FUNCTION brain.unwatch(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
    drop_commands text;
BEGIN
    DELETE FROM brain.watched w WHERE w.relation = unwatch.relation RETURNING w.id INTO watch;
    IF watch IS NULL THEN
        RAISE EXCEPTION 'table % is not watched', relation;
    END IF;
    drop_commands := brain.drop_commands(watch, relation);
    IF brain.is_owner(relation) THEN
        EXECUTE coalesce(drop_commands, 'SELECT');
    ELSE
        RAISE WARNING 'the triggers of Brain on % do nothing any more; its owner can drop them: %', relation,
              drop_commands;
    END IF;
    PERFORM brain.let_read('watch ' || watch, '{}', NULL), brain.unwatch_dropped();
    PERFORM brain.append_watch_change('unwatched', watch);
END $$;
REVOKE ALL ON FUNCTION brain.unwatch FROM PUBLIC;
