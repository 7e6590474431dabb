-- A watched table says what its messages are called, can be let go, keeps the order of its changes
-- when it has triggers of its own, may be partitioned or written to by logical replication; and its
-- writers pay less: the trigger function names the columns instead of turning whole rows into jsonb.

SET LOCAL ROLE brain_owner;

ALTER TABLE brain.watched
    ADD COLUMN types         jsonb   NOT NULL DEFAULT '{}',
    ADD COLUMN is_deferred   boolean NOT NULL DEFAULT false,
    ADD COLUMN is_replicated boolean NOT NULL DEFAULT false;

-- Which of the four children of brain.events takes what is written now. Its name stands in the trigger
-- functions, and brain.forget writes them anew when it is another's turn: to choose one by the clock,
-- in every row, costs a writer a tenth of what it pays for the event.
CREATE TABLE brain.current_slot (
    number integer     NOT NULL,
    since  timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brain.current_slot (number) VALUES (0);

-- The statement that inserts one event, given as expressions. As text, because a function that is
-- called, and an expression on its own, costs a writer as much as half of the insertion.
CREATE FUNCTION brain.insertion(channel text, type text, operation text, key text, data text, old text)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($insert$INSERT INTO brain.events_%s
            (transaction_id, id, at, channel, type, operation, key, data, old)
        VALUES (pg_catalog.pg_current_xact_id(), pg_catalog.nextval('brain.event_id'),
                pg_catalog.clock_timestamp(), %s, %s, %s, %s, %s, %s)$insert$,
        number, channel, type, operation, key, data, old)
      FROM brain.current_slot
$$;

-- Whether the bell is to be rung, as an expression. A node that sleeps holds the lock in shared mode;
-- whoever can take it alone knows that nobody sleeps, and spares himself the NOTIFY, which serialises
-- commits. Whoever cannot take it in shared mode either has met another writer that is looking, who
-- could take it alone. To be asked after the event has been written: a node that goes to sleep waits
-- for all transactions that have an id by then. A role whose transactions are prepared for two-phase
-- commit, which NOTIFY forbids, sets brain.bell to off; its changes are told at the nodes' next look.
CREATE FUNCTION brain.somebody_sleeps() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '(CASE WHEN pg_catalog.pg_try_advisory_lock(5221, 2)'
           ' THEN NOT pg_catalog.pg_advisory_unlock(5221, 2)'
           ' WHEN pg_catalog.pg_try_advisory_lock_shared(5221, 2)'
           ' THEN pg_catalog.pg_advisory_unlock_shared(5221, 2)'
           ' AND coalesce(pg_catalog.current_setting(''brain.bell'', true), '''')'
           ' OPERATOR(pg_catalog.<>) ''off'' ELSE false END)'
$$;

-- Writes the function that appends one event, or writes it anew. It is called with the rights of
-- brain_owner, under whatever search_path the writer has: hence the qualified names in all that is
-- generated here.
CREATE FUNCTION brain.write_append() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.append(
    channel text, type text, operation "char", key jsonb, data jsonb, old jsonb)
RETURNS void LANGUAGE plpgsql AS $append$
BEGIN
    %s;
    IF %s THEN
        PERFORM pg_catalog.pg_notify('brain', '');
    END IF;
END $append$;
ALTER FUNCTION brain.append(text, text, "char", jsonb, jsonb, jsonb) OWNER TO brain_owner;
REVOKE ALL ON FUNCTION brain.append(text, text, "char", jsonb, jsonb, jsonb) FROM PUBLIC$function$,
        brain.insertion('channel', 'type', 'operation', 'key', 'data', 'old'), brain.somebody_sleeps());
END $write$;
SELECT brain.write_append();

-- The expression for how many bytes a value takes, before it is compressed: a megabyte of the same
-- letter is stored in twelve kilobytes. What is stored in a kilobyte cannot have been much. It has to
-- do for every type, since that of a column may change.
CREATE FUNCTION brain.size_of(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('CASE WHEN pg_catalog.pg_column_size(%1$s) OPERATOR(pg_catalog.>) 1024'
                  ' THEN pg_catalog.octet_length(%1$s::pg_catalog.text)'
                  ' ELSE coalesce(pg_catalog.pg_column_size(%1$s), 0) END', value)
$$;

-- The watched columns with how they are read from a row; a column that is gone is null. Former values
-- are only looked at, and only short ones kept.
CREATE FUNCTION brain.readings(watched brain.watched, names text[])
RETURNS TABLE (number bigint, name text, is_long boolean, new text, old text, former text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.number, c.name, a.attlen = -1, coalesce('NEW.' || quote_ident(a.attname), 'NULL'),
           coalesce('OLD.' || quote_ident(a.attname), 'NULL'),
           CASE WHEN a.attlen = -1
                THEN format('CASE WHEN (%s) OPERATOR(pg_catalog.<=) 65536 THEN OLD.%I END',
                            brain.size_of('OLD.' || quote_ident(a.attname)), a.attname)
                ELSE coalesce('OLD.' || quote_ident(a.attname), 'NULL') END
      FROM unnest(names) WITH ORDINALITY c (name, number)
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = c.name
                              AND a.attnum > 0 AND NOT a.attisdropped
$$;

-- The expression that makes an object of names and values, fifty at a time: a function takes a
-- hundred arguments.
CREATE FUNCTION brain.object_of(names text[], expressions text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(part, ' OPERATOR(pg_catalog.||) ' ORDER BY number)
      FROM (SELECT (position - 1) / 50 AS number,
                   format('pg_catalog.jsonb_build_object(%s)', string_agg(
                       format('%L, %s', name, value), ', ' ORDER BY position)) AS part
              FROM unnest(names, expressions) WITH ORDINALITY c (name, value, position)
             GROUP BY 1) parts
$$;

-- Appends the events of a row whose table has been altered since its trigger function was written, by
-- the names of the columns: one that was renamed or dropped is null, and the writer does not fail. What
-- is to be told stands in the call: the snapshot of the writer may be older than the row of brain.watched.
CREATE FUNCTION brain.append_by_name(channel text, types jsonb, key_columns text[], columns text[],
                                     old_row jsonb, new_row jsonb)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old_key jsonb;
    new_key jsonb;
    old_data jsonb;
    new_data jsonb;
    former jsonb;
BEGIN
    SELECT jsonb_agg(old_row -> name ORDER BY position), jsonb_agg(new_row -> name ORDER BY position)
      INTO old_key, new_key FROM unnest(key_columns) WITH ORDINALITY c (name, position);
    SELECT jsonb_object_agg(name, old_row -> name), jsonb_object_agg(name, new_row -> name),
           jsonb_object_agg(name, CASE WHEN pg_column_size(old_row -> name) <= 65536
                                       THEN old_row -> name END)
      INTO old_data, new_data, former FROM unnest(columns) name;
    IF old_row IS NOT NULL AND (new_row IS NULL OR new_key <> old_key) THEN
        PERFORM brain.append(channel, types ->> 'delete', 'D', old_key, NULL, former);
    END IF;
    IF new_row IS NOT NULL AND (old_row IS NULL OR new_key <> old_key OR new_data <> old_data) THEN
        PERFORM brain.append(
            channel, types ->> CASE WHEN old_row IS NULL THEN 'insert' ELSE 'update' END,
            CASE WHEN old_row IS NULL THEN 'I' ELSE 'U' END::"char", new_key,
            CASE WHEN pg_column_size(new_data) <= 262144 THEN new_data END,
            CASE WHEN old_row IS NOT NULL THEN (
                SELECT coalesce(jsonb_object_agg(name, value), '{}') FROM jsonb_each(former) e (name, value)
                 WHERE old_data -> name <> new_data -> name) END);
    END IF;
END $$;

-- Writes the trigger function of one watched table, or writes it anew.
--
-- It reads the columns directly, which takes half the time of looking them up in to_jsonb(NEW) and
-- leaves alone what is not listed. The first expression of each branch touches all of them: if the
-- table has been altered, it fails there, before anything is written, and the columns are looked up
-- by name. (In an array: of ROW(a, b) IS NULL the planner makes a IS NULL AND b IS NULL, which stops at
-- the first.) Rows are compared by their image, which needs no operator: which one that is would depend
-- on the writer's search_path, and not every type has one.
CREATE OR REPLACE FUNCTION brain.write_capture(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
DECLARE
    channel CONSTANT text := quote_literal(watched.channel);
    all_columns CONSTANT text[] := watched.key_columns || ARRAY(
        SELECT c FROM unnest(watched.columns) c WHERE c <> ALL (watched.key_columns));
    old_key text;
    new_key text;
    old_keys text;
    new_keys text;
    old_values text;
    new_values text;
    old_nulls text;
    new_nulls text;
    by_name CONSTANT text := format('brain.append_by_name(%L, %L, %L, %L', watched.channel, watched.types,
                                    watched.key_columns, watched.columns);
    new_size text;
    data text;
    former text;
    changed text;
BEGIN
    SELECT format('pg_catalog.jsonb_build_array(%s)', string_agg(old, ', ' ORDER BY number)),
           format('pg_catalog.jsonb_build_array(%s)', string_agg(new, ', ' ORDER BY number)),
           string_agg(old, ', ' ORDER BY number), string_agg(new, ', ' ORDER BY number)
      INTO old_key, new_key, old_keys, new_keys FROM brain.readings(watched, watched.key_columns);
    SELECT string_agg(old, ', ' ORDER BY number), string_agg(new, ', ' ORDER BY number),
           string_agg(old || ' IS NULL', ', ' ORDER BY number),
           string_agg(new || ' IS NULL', ', ' ORDER BY number)
      INTO old_values, new_values, old_nulls, new_nulls FROM brain.readings(watched, all_columns);
    SELECT string_agg(format('(%s)', brain.size_of(new)), ' OPERATOR(pg_catalog.+) ') FILTER (WHERE is_long),
           brain.object_of(array_agg(name ORDER BY number), array_agg(new ORDER BY number)),
           brain.object_of(array_agg(name ORDER BY number), array_agg(readings.former ORDER BY number)),
           string_agg(format('CASE WHEN pg_catalog.record_image_ne(ROW(%s), ROW(%s))'
                             ' THEN pg_catalog.jsonb_build_object(%L, %s) ELSE ''{}'' END',
                             old, new, name, readings.former), ' OPERATOR(pg_catalog.||) ' ORDER BY number)
      INTO new_size, data, former, changed FROM brain.readings(watched, watched.columns) readings;
    IF new_size IS NOT NULL THEN
        data := format('CASE WHEN %s OPERATOR(pg_catalog.<=) 262144 THEN %s END', new_size, data);
    END IF;
    EXECUTE format($body$
CREATE OR REPLACE FUNCTION brain.%1$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $capture$
BEGIN
    IF TG_OP OPERATOR(pg_catalog.=) 'UPDATE' THEN
        BEGIN
            IF NOT pg_catalog.record_image_ne(ROW(%2$s), ROW(%3$s)) THEN
                RETURN NULL;
            END IF;
        EXCEPTION WHEN undefined_column OR datatype_mismatch THEN
            PERFORM %4$s, pg_catalog.to_jsonb(OLD), pg_catalog.to_jsonb(NEW));
            RETURN NULL;
        END;
        IF pg_catalog.record_image_ne(ROW(%5$s), ROW(%6$s)) THEN
            %7$s;
        END IF;
        %8$s;
    ELSIF TG_OP OPERATOR(pg_catalog.=) 'INSERT' THEN
        BEGIN
            IF ARRAY[%14$s] IS NULL THEN  -- never
                RETURN NULL;
            END IF;
        EXCEPTION WHEN undefined_column OR datatype_mismatch THEN
            PERFORM %4$s, NULL, pg_catalog.to_jsonb(NEW));
            RETURN NULL;
        END;
        %9$s;
    ELSIF TG_OP OPERATOR(pg_catalog.=) 'DELETE' THEN
        BEGIN
            IF ARRAY[%13$s] IS NULL THEN
                RETURN NULL;
            END IF;
        EXCEPTION WHEN undefined_column OR datatype_mismatch THEN
            PERFORM %4$s, pg_catalog.to_jsonb(OLD), NULL);
            RETURN NULL;
        END;
        %7$s;
    ELSE
        PERFORM brain.append(%10$s, %11$L, 'T', NULL, NULL, NULL);
    END IF;
    IF %12$s THEN
        PERFORM pg_catalog.pg_notify('brain', '');
    END IF;
    RETURN NULL;
END $capture$;
ALTER FUNCTION brain.%1$I() OWNER TO brain_owner;
REVOKE ALL ON FUNCTION brain.%1$I() FROM PUBLIC$body$,
        'capture_' || watched.id, old_values, new_values, by_name, old_keys, new_keys,
        brain.insertion(channel, quote_nullable(watched.types ->> 'delete'), $$'D'$$, old_key, 'NULL', former),
        brain.insertion(channel, quote_nullable(watched.types ->> 'update'), $$'U'$$, new_key, data, changed),
        brain.insertion(channel, quote_nullable(watched.types ->> 'insert'), $$'I'$$, new_key, data, 'NULL'),
        channel, watched.types ->> 'truncate', brain.somebody_sleeps(), old_nulls, new_nulls);
END $write$;

SELECT brain.write_capture(w) FROM brain.watched w;
DROP FUNCTION brain.append(text, "char", jsonb, jsonb, jsonb);
DROP FUNCTION brain.unchanged;
DROP FUNCTION brain.key_of;
DROP FUNCTION brain.without_long_values;
DROP FUNCTION brain.picking;

CREATE FUNCTION brain.primary_key(relation regclass) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(a.attname::text ORDER BY k.position)
      FROM pg_index i
     CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k (attnum, position)
      JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
     WHERE i.indrelid = relation AND i.indisprimary AND k.position <= i.indnkeyatts  -- not what is INCLUDEd
$$;

CREATE FUNCTION brain.missing_columns(relation regclass, columns text[]) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(coalesce(name, 'NULL'), ', ') FROM unnest(columns) name
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation
                        AND a.attname = name AND a.attnum > 0 AND NOT a.attisdropped)
$$;

-- Whether the table, or one of its partitions, has AFTER ROW triggers of the application. One that
-- writes rows of the same table makes the changes be seen in another order than they were made.
CREATE FUNCTION brain.has_row_triggers(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid IN (SELECT relation UNION ALL SELECT relid FROM pg_partition_tree(relation))
                      AND NOT t.tgisinternal AND t.tgname NOT LIKE '!brain%'
                      AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0)
$$;

-- Whether the triggers are there and enabled, those of every partition too.
CREATE FUNCTION brain.has_triggers(relation regclass, enabled "char") RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FILTER (WHERE t.tgname = '!brain_1_row') = count(DISTINCT r.id)
       AND count(*) FILTER (WHERE t.tgname = '!brain_2_truncate' AND r.id = relation) = 1
      FROM (SELECT relation::oid UNION SELECT relid FROM pg_partition_tree(relation)) r (id)
      LEFT JOIN pg_trigger t ON t.tgrelid = r.id AND t.tgenabled = enabled
$$;

CREATE FUNCTION brain.drop_triggers(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT t.tgname FROM pg_trigger t
                 WHERE t.tgrelid = relation AND t.tgname LIKE '!brain%' AND t.tgparentid = 0 LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, relation);
    END LOOP;
END $$;

-- Forgets the watches of tables that were dropped.
CREATE FUNCTION brain.unwatch_dropped() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
BEGIN
    FOR watch IN DELETE FROM brain.watched w
                  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation) RETURNING w.id LOOP
        EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
    END LOOP;
END $$;

DROP FUNCTION brain.watch(regclass, text, text[]);

-- Has every change of a table told on a channel, with the listed columns and no others.
--
-- types: what its messages are called, {"insert": "order_placed", "update": …, "delete": …,
--     "truncate": …}; where it says nothing, the wire format decides.
-- timing: 'immediate' or 'deferred' to the end of the transaction. By default deferred where the table
--     has AFTER ROW triggers of its own. The price of deferring: ALTER TABLE and TRUNCATE after a
--     change in the same transaction need SET CONSTRAINTS ALL IMMEDIATE before them.
-- replicated: whether to tell what logical replication applies here, too; triggers do not fire for
--     that otherwise.
--
-- To be called again when any of that changes. Locks the table for a moment, and needs its TRIGGER
-- privilege and membership in brain_owner. The names of the triggers sort before a letter: were they
-- to fire after a trigger of the application that writes the row again, the older image would be
-- logged last.
CREATE FUNCTION brain.watch(relation regclass, channel text, columns text[], types jsonb DEFAULT '{}',
                            timing text DEFAULT NULL, replicated boolean DEFAULT false)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    keys CONSTANT text[] := brain.primary_key(relation);
    unknown CONSTANT text := brain.missing_columns(relation, columns);
    strange CONSTANT text := (
        SELECT string_agg(name, ', ') FROM jsonb_each(types) t (name, value)
         WHERE name NOT IN ('insert', 'update', 'delete', 'truncate')
            OR jsonb_typeof(value) <> 'string' OR value = '""');
    is_deferred CONSTANT boolean := coalesce(timing = 'deferred', brain.has_row_triggers(relation));
    taken CONSTANT regclass := (SELECT w.relation FROM brain.watched w
                                 WHERE w.channel = watch.channel AND w.relation <> watch.relation
                                   AND EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation));
    computed CONSTANT text := (
        SELECT string_agg(a.attname, ', ') FROM pg_attribute a
         WHERE a.attrelid = relation AND a.attname = ANY (columns) AND a.attgenerated = 'v');
    kind "char";
    watched brain.watched;
    trigger_name text;
BEGIN
    SELECT c.relkind INTO kind FROM pg_class c
     WHERE c.oid = relation AND c.relpersistence <> 't' AND c.relnamespace <> 'brain'::regnamespace;
    IF kind IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% is not a table that others can see', relation;
    ELSIF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key', relation;
    ELSIF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', relation, unknown;
    ELSIF computed IS NOT NULL THEN
        RAISE EXCEPTION 'triggers do not see the virtual column % of %', computed, relation;
    ELSIF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'no column of % is to be told', relation;
    ELSIF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'the channel for % has no name', relation;
    ELSIF taken IS NOT NULL THEN
        RAISE EXCEPTION 'the channel % is that of table %', channel, taken;
    ELSIF strange IS NOT NULL THEN
        RAISE EXCEPTION 'types names messages for insert, update, delete and truncate; not %', strange;
    ELSIF timing NOT IN ('immediate', 'deferred') THEN
        RAISE EXCEPTION 'timing is immediate or deferred, not %', timing;
    END IF;
    PERFORM brain.unwatch_dropped();
    INSERT INTO brain.watched AS w (relation, channel, key_columns, columns, types, is_deferred, is_replicated)
    VALUES (relation, channel, keys, columns, types, is_deferred, replicated)
    ON CONFLICT ON CONSTRAINT watched_relation_key DO UPDATE
       SET channel = excluded.channel, key_columns = excluded.key_columns, columns = excluded.columns,
           types = excluded.types, is_deferred = excluded.is_deferred, is_replicated = excluded.is_replicated
    RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched), brain.drop_triggers(relation);
    EXECUTE format($triggers$
CREATE %3$s TRIGGER "!brain_1_row" AFTER INSERT OR UPDATE OR DELETE ON %1$s %4$s
    FOR EACH ROW EXECUTE FUNCTION %2$s;
CREATE TRIGGER "!brain_2_truncate" AFTER TRUNCATE ON %1$s
    FOR EACH STATEMENT EXECUTE FUNCTION %2$s;$triggers$,
        relation, format('brain.%I()', 'capture_' || watched.id),
        CASE WHEN is_deferred THEN 'CONSTRAINT' END,
        CASE WHEN is_deferred THEN 'DEFERRABLE INITIALLY DEFERRED' END);
    IF replicated THEN
        FOR trigger_name IN SELECT t.tgname FROM pg_trigger t
                             WHERE t.tgrelid = relation AND t.tgname LIKE '!brain%' LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, trigger_name);
        END LOOP;
    END IF;
END $watch$;

-- Lets a table go. What is in the log already is still told.
CREATE FUNCTION brain.unwatch(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
BEGIN
    DELETE FROM brain.watched w WHERE w.relation = unwatch.relation RETURNING w.id INTO watch;
    IF watch IS NULL THEN
        RAISE EXCEPTION 'table % is not watched', relation;
    END IF;
    PERFORM brain.drop_triggers(relation), brain.unwatch_dropped();
    EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
END $$;

-- What is watched, and what is wrong with it.
CREATE VIEW brain.watches AS
SELECT w.relation, w.channel, w.key_columns, w.columns, w.types,
       CASE WHEN w.is_deferred THEN 'deferred' ELSE 'immediate' END AS timing,
       w.is_replicated AS replicated,
       array_remove(ARRAY[
           CASE WHEN c.oid IS NULL THEN 'the table is gone' END,
           CASE WHEN c.oid IS NOT NULL THEN 'no column ' || brain.missing_columns(c.oid, w.columns) END,
           CASE WHEN brain.primary_key(c.oid) IS DISTINCT FROM w.key_columns AND c.oid IS NOT NULL
                THEN 'the primary key has changed' END,
           CASE WHEN c.oid IS NOT NULL
                 AND NOT brain.has_triggers(c.oid, CASE WHEN w.is_replicated THEN 'A' ELSE 'O' END::"char")
                THEN 'a trigger is missing or disabled' END,
           CASE WHEN NOT w.is_deferred AND brain.has_row_triggers(c.oid)
                THEN 'it has AFTER ROW triggers by now, which may write rows again' END], NULL) AS problems
  FROM brain.watched w LEFT JOIN pg_class c ON c.oid = w.relation;

-- Of a partitioned table that is all of it, of any other what it holds itself: its triggers do not
-- see what is written to tables that inherit from it.
CREATE FUNCTION brain.rows_of(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || relation::text
      FROM pg_class c WHERE c.oid = relation
$$;

-- The query for the watched columns of its rows, which are called new.
CREATE FUNCTION brain.selection(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('SELECT %s FROM %s new', brain.object_of(array_agg(name ORDER BY number),
                  array_agg(new ORDER BY number)), brain.rows_of(watched.relation))
      FROM brain.readings(watched, watched.columns)
$$;

-- A row that was too large for the log, as it is now; null if it is gone. With the reader's rights:
-- brain_owner has none on the watched tables.
CREATE OR REPLACE FUNCTION brain.current_row(channel text, key jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched brain.watched;
    matches text;
    row jsonb;
BEGIN
    SELECT w.* INTO watched FROM brain.watched w WHERE w.channel = current_row.channel;
    SELECT string_agg(format('new.%I = ($1 ->> %s)::%s', name, position - 1,
                             format_type(a.atttypid, a.atttypmod)), ' AND ')
      INTO matches
      FROM unnest(watched.key_columns) WITH ORDINALITY c(name, position)
      JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = c.name;
    IF matches IS NULL THEN
        RETURN NULL;  -- no longer watched
    END IF;
    EXECUTE format('%s WHERE %s', brain.selection(watched), matches) INTO row USING key;
    RETURN row;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
    -- Better one row untold than a reader that never gets past it.
    RAISE WARNING 'the row % on channel %, too large for the log, cannot be told: %', key, channel, SQLERRM;
    RETURN NULL;
END $$;

-- Forgets what is older than `keep`: the ticks before the last one of that age, and every slot whose
-- events all lie before it. Returns how many slots were emptied. After half of that time it is the
-- turn of the next slot, if that is empty. A slot that anybody still holds is left for the next time:
-- who waits for a lock has those who come after it wait, too, and writers may have short timeouts.
CREATE OR REPLACE FUNCTION brain.forget(keep interval) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept bigint;
    oldest xid8;
    slot text;
    is_old boolean;
    emptied integer := 0;
BEGIN
    BEGIN
        LOCK TABLE brain.forget_lock IN EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN 0;  -- another node is at it
    END;
    PERFORM set_config('lock_timeout', '200ms', true);
    PERFORM brain.turn(keep / 2);
    -- From the old end, where only those lie that are about to go.
    SELECT t.id - 1 INTO kept FROM brain.ticks t
     WHERE t.at >= clock_timestamp() - keep ORDER BY t.id LIMIT 1;
    kept := coalesce(kept, (SELECT max(t.id) FROM brain.ticks t));
    SELECT pg_snapshot_xmin(t.snapshot) INTO oldest FROM brain.ticks t WHERE t.id = kept;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM brain.ticks t WHERE t.id < kept;
    FOREACH slot IN ARRAY ARRAY['events_0', 'events_1', 'events_2', 'events_3'] LOOP
        BEGIN
            -- A look before the lock, and another one when no writer is in the slot any more.
            EXECUTE format('SELECT EXISTS (SELECT FROM brain.%1$I)'
                           ' AND NOT EXISTS (SELECT FROM brain.%1$I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            CONTINUE WHEN NOT is_old;
            EXECUTE format('LOCK TABLE brain.%I IN ACCESS EXCLUSIVE MODE NOWAIT', slot);
            EXECUTE format('SELECT NOT EXISTS (SELECT FROM brain.%I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            IF is_old THEN
                EXECUTE format('TRUNCATE brain.%I', slot);
                emptied := emptied + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN emptied;
END $$;

-- Lets writers go on to the next slot, if this one has been written to for so long.
CREATE FUNCTION brain.turn(age interval) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    slot integer;
    is_due boolean;
BEGIN
    SELECT number INTO slot FROM brain.current_slot WHERE since <= clock_timestamp() - age;
    IF FOUND THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM brain.events_%s) AND NOT EXISTS (SELECT FROM brain.events_%s)',
                       slot, (slot + 1) % 4) INTO is_due;
        IF is_due THEN
            LOCK TABLE brain.watched IN SHARE ROW EXCLUSIVE MODE;  -- not while a table is being watched
            UPDATE brain.current_slot SET number = (slot + 1) % 4, since = clock_timestamp();
            PERFORM brain.write_append();
            PERFORM brain.write_capture(w) FROM brain.watched w;
        END IF;
    END IF;
EXCEPTION WHEN lock_not_available THEN
    NULL;
END $$;

-- The bell is rung where the event is written: a trigger for statements is not fired by what is written
-- to a partition or by logical replication, and is by a statement that changes nothing.
RESET ROLE;
DO $$
DECLARE
    relation regclass;
BEGIN
    FOR relation IN SELECT w.relation FROM brain.watched w LOOP
        EXECUTE format('DROP TRIGGER "!brain_3_bell" ON %s', relation);
    END LOOP;
END $$;
DROP FUNCTION brain.ring;
