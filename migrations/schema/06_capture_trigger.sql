-- The trigger function of a watched table. It is generated for just the watched columns: a generic one
-- pays for looking its columns up in every row, and only the listed columns may ever reach the log.
--
-- Locks: brain.watched SHARE ROW EXCLUSIVE

SET LOCAL ROLE brain_owner;

-- Appends the events of a row from the texts of its values, of which some are null because they are too
-- large or cannot be shown. The watch is passed in arguments because the writer's snapshot may be older
-- than its row in brain.watched.
CREATE OR REPLACE FUNCTION brain.append_parts(channel text, types jsonb, names text[], is_listed boolean[],
                                              keys integer, is_rule boolean[], rule_number bigint,
                                              row_bytes integer, old_parts text[], new_parts text[])
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    old_key CONSTANT text := '[' || array_to_string(old_parts[:keys], ', ') || ']';
    new_key CONSTANT text := '[' || array_to_string(new_parts[:keys], ', ') || ']';
    has_rules CONSTANT boolean := true = ANY (is_rule);
    old_rules CONSTANT text := CASE WHEN has_rules AND old_parts IS NOT NULL
        THEN format('{"" : %s, ', rule_number) || substr(brain.object_of(names, is_rule, old_parts), 2) END;
    new_rules CONSTANT text := CASE WHEN has_rules AND new_parts IS NOT NULL
        THEN format('{"" : %s, ', rule_number) || substr(brain.object_of(names, is_rule, new_parts), 2) END;
    -- The columns of the key come first, and then those of the rules.
    kept CONSTANT integer := greatest(keys, (SELECT max(number) FROM unnest(is_rule) WITH ORDINALITY r (is_rule, number)
                                              WHERE r.is_rule));
    old_data text;
    new_data text;
BEGIN
    IF array_position(old_parts[:kept], NULL) IS NOT NULL OR array_position(new_parts[:kept], NULL) IS NOT NULL
       OR greatest(octet_length(old_key), octet_length(new_key), octet_length(old_rules), octet_length(new_rules))
          > 8192 THEN
        PERFORM brain.append_reset(channel, CASE WHEN has_rules
            THEN 'a row was changed whose key, or a column of a row rule, is too large, cannot be shown, or has '
                 'another type by now'
            ELSE 'a row was changed whose key is too large or cannot be shown' END);
        RETURN;
    END IF;
    SELECT p.new_parts, p.old_parts INTO new_parts, old_parts
      FROM brain.leave_out_largest(new_parts, old_parts, kept, row_bytes) p;
    old_data := CASE WHEN old_parts IS NOT NULL THEN brain.object_of(names, is_listed, old_parts) END;
    new_data := CASE WHEN new_parts IS NOT NULL THEN brain.object_of(names, is_listed, new_parts) END;
    IF old_key IS NOT NULL AND new_key IS DISTINCT FROM old_key THEN
        PERFORM brain.append(channel, types ->> 'delete', 'D', old_key, NULL, old_data,
                             omitted => brain.omitted_columns(names, is_listed, old_parts),
                             old_rule_values => old_rules);
    END IF;
    IF new_key IS NOT NULL THEN
        PERFORM brain.append(channel, types ->> CASE WHEN old_key IS NULL THEN 'insert' ELSE 'update' END,
                             CASE WHEN old_key IS NULL THEN 'I' ELSE 'U' END::"char", new_key, new_data,
                             old_data, omitted => brain.omitted_columns(names, is_listed, new_parts),
                             rule_values => new_rules, old_rule_values => old_rules);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.append_parts FROM PUBLIC;

-- Switches the capture of changes off until the end of the transaction, for a backfill: the clients of each
-- channel get one `reset` instead of its rows. So does SET LOCAL brain.capture = 'off'. For roles that may
-- execute this function.
CREATE OR REPLACE FUNCTION brain.capture_off() RETURNS void LANGUAGE sql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp AS $$
    SELECT set_config('brain.capture', 'off', true)
$$;
REVOKE ALL ON FUNCTION brain.capture_off FROM PUBLIC;

-- Appends a reset in place of a row; returns false if the writer's role may not switch its capture off. To be
-- called where brain.capture is off.
CREATE OR REPLACE FUNCTION brain.reset_instead(channel text) RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    -- current_user is the owner of the trigger function.
    writer CONSTANT name := coalesce(nullif(current_setting('role'), 'none'), session_user);
BEGIN
    IF NOT has_function_privilege(writer, 'brain.capture_off()', 'EXECUTE') THEN
        RAISE WARNING 'the changes are captured: role % may not switch that off; this allows it: '
                      'GRANT EXECUTE ON FUNCTION brain.capture_off TO %', writer, quote_ident(writer);
        PERFORM set_config('brain.capture', 'on', true);
        RETURN false;
    END IF;
    PERFORM brain.append_reset(channel, 'rows were changed without being sent one by one');
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION brain.reset_instead FROM PUBLIC;

-- The statement that reads the columns of the record `r` one by one into the array `parts`, for rows with
-- large values and for tables that have been altered. A column that the table no longer has is null; one of
-- the key or a row rule has no text then. If the type of a column has changed since this session planned the
-- function, a statement of its own reads it; one of a row rule has no text then, as its values are no longer those
-- that claims were compared with.
CREATE OR REPLACE FUNCTION brain.parts_statement(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format($part$
        BEGIN
            IF %7$s THEN
                part := CASE WHEN %2$s THEN NULL ELSE coalesce(to_json(%3$s)::text, 'null') END;
            ELSE
                %4$s;
            END IF;
        EXCEPTION WHEN undefined_column THEN
            part := %6$s;
        WHEN OTHERS OR assert_failure THEN
            BEGIN
                %4$s;
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                part := NULL;
            END;
        END;
        parts[%1$s] := %5$s;$part$,
        number,
        CASE WHEN (is_key OR is_rule) AND is_missing THEN 'true'
             ELSE coalesce(size || ' > ' || watched.column_bytes, 'false') END, shown,
        CASE WHEN is_rule THEN 'part := NULL'
             ELSE format('EXECUTE %L INTO part USING r',
                         format('SELECT coalesce(brain.json_of(($1).%I), ''null'')', name)) END,
        -- The header of a text tells how large it is; of another value it may be known only now.
        CASE WHEN size LIKE 'octet_length%' THEN 'part'
             ELSE format('CASE WHEN octet_length(part) <= %s THEN part END', watched.column_bytes) END,
        CASE WHEN is_key OR is_rule THEN 'NULL' ELSE '''null''' END, coalesce(guard, 'true')),
        '' ORDER BY number)
      FROM brain.column_expressions(watched, 'r')
$$;
REVOKE ALL ON FUNCTION brain.parts_statement FROM PUBLIC;

-- The expression for "a column with no text on either side has changed", where all types are as they were. Large
-- values are not fetched to compare them. One that was not written again is stored at the same place, which is known
-- from PostgreSQL 17 on; before, an update of a row with a large value counts as a change.
CREATE OR REPLACE FUNCTION brain.hidden_change(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format(
               CASE WHEN n.size IS NULL
                        THEN '(new_parts[%1$s] IS NULL AND record_image_ne(ROW(%2$s), ROW(%3$s)))'
                    WHEN current_setting('server_version_num')::integer < 170000
                        THEN '(new_parts[%1$s] IS NULL AND (greatest(%5$s, %6$s) > %4$s'
                             ' OR record_image_ne(ROW(%2$s), ROW(%3$s))))'
                    ELSE '(new_parts[%1$s] IS NULL AND (pg_column_toast_chunk_id(%2$s)'
                         ' IS DISTINCT FROM pg_column_toast_chunk_id(%3$s)'
                         ' OR pg_column_toast_chunk_id(%3$s) IS NULL'
                         ' AND record_image_ne(ROW(%2$s), ROW(%3$s))))' END,
               n.number, o.value, n.value, watched.column_bytes,
               CASE WHEN o.size LIKE 'octet_length%' THEN o.size ELSE brain.stored_size(o.value) END,
               CASE WHEN n.size LIKE 'octet_length%' THEN n.size ELSE brain.stored_size(n.value) END),
               ' OR ' ORDER BY n.number)
      FROM brain.column_expressions(watched, 'NEW') n JOIN brain.column_expressions(watched, 'OLD') o USING (number)
     WHERE NOT n.is_missing
$$;
REVOKE ALL ON FUNCTION brain.hidden_change FROM PUBLIC;

-- The expression for "one of these sizes is over its limit".
CREATE OR REPLACE FUNCTION brain.any_larger(watched brain.watched, key_sizes text, sizes text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(nullif(concat_ws(' OR ', 'greatest(' || nullif(key_sizes, '') || ') > 1300',
                                     'greatest(' || nullif(sizes, '') || ') > ' || watched.column_bytes), ''),
                    'false')
$$;
REVOKE ALL ON FUNCTION brain.any_larger FROM PUBLIC;

-- The expressions of a trigger function that read the row `alias`, with the names of its columns.
CREATE OR REPLACE FUNCTION brain.capture_expressions(
    watched brain.watched, alias text, OUT key text, OUT data text, OUT key_sizes text, OUT sizes text, OUT rules text,
    OUT names text[], OUT is_listed boolean[], OUT is_rule boolean[], OUT guard text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('json_build_array(%s)::text', string_agg(c.shown, ', ' ORDER BY c.number) FILTER (WHERE c.is_key)),
           brain.object_expression(array_agg(c.name ORDER BY c.number) FILTER (WHERE c.is_listed),
                                   array_agg(c.shown ORDER BY c.number) FILTER (WHERE c.is_listed)),
           string_agg(c.size, ', ' ORDER BY c.number) FILTER (WHERE c.is_key OR c.is_rule),
           string_agg(c.size, ', ' ORDER BY c.number) FILTER (WHERE NOT c.is_key AND NOT c.is_rule),
           CASE WHEN watched.rules <> '{}' THEN brain.object_expression(
               ARRAY[''] || array_agg(c.name ORDER BY c.number) FILTER (WHERE c.is_rule),
               watched.rule_number::text || array_agg(c.shown ORDER BY c.number) FILTER (WHERE c.is_rule)) END,
           array_agg(c.name ORDER BY c.number), array_agg(c.is_listed ORDER BY c.number),
           array_agg(c.is_rule ORDER BY c.number), string_agg(c.guard, ' AND ' ORDER BY c.number)
      FROM brain.column_expressions(watched, alias) c
$$;
REVOKE ALL ON FUNCTION brain.capture_expressions FROM PUBLIC;

-- The trigger function of a watch, by which its triggers are found: the owner of the table can rename them.
CREATE OR REPLACE FUNCTION brain.capture_of(watch integer) RETURNS regprocedure LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_regprocedure(format('brain.capture_%s()', watch))
$$;
REVOKE ALL ON FUNCTION brain.capture_of FROM PUBLIC;

-- Generates the trigger function of one watched table.
--
-- It reads the columns directly, which takes half the time of looking them up in to_json(NEW) and does not
-- read unlisted columns. It reads none that has another type by now: what its owner may define for that would run with
-- the rights of brain_owner. The types are compared in a statement of their own: to plan an expression is to evaluate
-- parts of it, also of a CASE that is not taken.
--
-- No column, whatever its type, size and rights, may fail the writer: everything that reads one is in a block that
-- catches errors (OTHERS alone would not catch failed assertions) and writes nothing. Sizes are read in expressions
-- that PL/pgSQL evaluates itself; a statement would fetch the values. If a value is large, or anything fails, the
-- columns are read one by one. A key of more than 1300 bytes may have more than 8192 as JSON. Rows are compared by
-- their texts, which are needed anyway: to compare them by their images as well takes longer.
CREATE OR REPLACE FUNCTION brain.write_capture(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
DECLARE
    -- The owner of a partitioned table, who may execute the function only by a right of its own.
    partitioned_by CONSTANT oid := (SELECT c.relowner FROM pg_class c
                                     WHERE c.oid = watched.relation AND c.relkind = 'p'
                                       AND NOT pg_has_role(c.relowner, 'brain_owner', 'USAGE'));
    grantee regrole;
    new CONSTANT record := brain.capture_expressions(watched, 'NEW');
    old CONSTANT record := brain.capture_expressions(watched, 'OLD');
    body text;
    channel CONSTANT text := quote_literal(watched.channel);
    -- The variables of the rules are written only where there are some: that costs other writers nothing.
    has_rules CONSTANT boolean := watched.rules <> '{}';
    rules CONSTANT text := CASE WHEN has_rules THEN 'rules' END;
    former_rules CONSTANT text := CASE WHEN has_rules THEN 'former_rules' END;
    most_bytes CONSTANT integer := CASE
        -- Without a column of the key or of a rule, every row is read column by column.
        WHEN EXISTS (SELECT FROM brain.column_expressions(watched, 'NEW') c
                      WHERE (c.is_key OR c.is_rule) AND c.is_missing) THEN -1
        ELSE least(watched.column_bytes, watched.row_bytes) END;
BEGIN
    body := format($body$
DECLARE
    event_id bigint;
    key text;
    former_key text;
    rules text;
    former_rules text;
    data text;
    former text;
    is_complete boolean := false;
    r record;
    part text;
    parts text[];
    new_parts text[];
    old_parts text[];
BEGIN%30$s
    IF current_setting('brain.capture', true) = 'off' THEN
        IF brain.reset_instead(%1$s) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            IF %28$s THEN
                IF (%2$s) IS NOT TRUE THEN
                    key := %3$s;
                    former_key := %4$s;
                    data := %5$s;
                    former := %6$s;%23$s%24$s
                    IF data = former AND key = former_key%26$s THEN
                        RETURN NULL;
                    END IF;
                    is_complete := octet_length(data) + octet_length(former) <= %7$s;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            is_complete := false;
        END;
        IF is_complete THEN
            IF former_key <> key THEN
                PERFORM brain.append(%1$s, %10$s, 'D', former_key, NULL, former,
                                     old_rule_values => former_rules);
            END IF;
            event_id := nextval('brain.event_id');
            %11$s;
        END IF;
    ELSIF TG_OP = 'INSERT' THEN
        BEGIN
            IF %28$s THEN
                IF (%8$s) IS NOT TRUE THEN
                    key := %3$s;
                    data := %5$s;%23$s
                    is_complete := octet_length(data) <= %7$s;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            is_complete := false;
        END;
        IF is_complete THEN
            event_id := nextval('brain.event_id');
            %12$s;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        BEGIN
            IF %29$s THEN
                IF (%9$s) IS NOT TRUE THEN
                    key := %4$s;
                    former := %6$s;%24$s
                    is_complete := octet_length(former) <= %7$s;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            is_complete := false;
        END;
        IF is_complete THEN
            event_id := nextval('brain.event_id');
            %13$s;
        END IF;
    ELSE
        PERFORM brain.append(%1$s, %14$s, 'T', NULL, NULL, NULL);
        RETURN NULL;
    END IF;
    IF is_complete THEN
        IF %15$s THEN
            PERFORM pg_notify('brain', '');
        END IF;
        RETURN NULL;
    END IF;
    FOR side IN 1 .. 2 LOOP
        IF side = 1 THEN
            CONTINUE WHEN TG_OP = 'INSERT';
            r := OLD;
        ELSE
            CONTINUE WHEN TG_OP = 'DELETE';
            r := NEW;
        END IF;
        parts := '{}';%16$s
        IF side = 1 THEN
            old_parts := parts;
        ELSE
            new_parts := parts;
        END IF;
    END LOOP;
    IF new_parts = old_parts THEN
        IF array_position(new_parts, NULL) IS NULL THEN
            RETURN NULL;
        END IF;
        BEGIN
            IF %28$s AND %29$s THEN
                IF NOT (%17$s) THEN
                    RETURN NULL;
                END IF;
            END IF;
        EXCEPTION WHEN OTHERS OR assert_failure THEN
            NULL;
        END;
    END IF;
    PERFORM brain.append_parts(%1$s, %18$L, %19$L, %20$L, %21$s, %25$L, %27$s, %22$s, old_parts, new_parts);
    RETURN NULL;
END $body$,
        channel,
        brain.any_larger(watched, concat_ws(', ', new.key_sizes, old.key_sizes), concat_ws(', ', new.sizes, old.sizes)),
        new.key, old.key, new.data, old.data, most_bytes,
        brain.any_larger(watched, new.key_sizes, new.sizes), brain.any_larger(watched, old.key_sizes, old.sizes),
        quote_nullable(watched.types ->> 'delete'),
        brain.insert_statements(channel, quote_nullable(watched.types ->> 'update'), $$'U'$$, 'key', 'data',
                                'former', rule_values => rules, old_rule_values => former_rules),
        brain.insert_statements(channel, quote_nullable(watched.types ->> 'insert'), $$'I'$$, 'key', 'data',
                                'NULL', rule_values => rules),
        brain.insert_statements(channel, quote_nullable(watched.types ->> 'delete'), $$'D'$$, 'key', 'NULL',
                                'former', old_rule_values => former_rules),
        quote_nullable(watched.types ->> 'truncate'), brain.node_is_parked(), brain.parts_statement(watched),
        coalesce(brain.hidden_change(watched), 'false'), watched.types, new.names, new.is_listed,
        cardinality(watched.key_columns), watched.row_bytes,
        E'\n                    rules := ' || new.rules || ';',
        E'\n                    former_rules := ' || old.rules || ';',
        new.is_rule, CASE WHEN has_rules THEN ' AND rules = former_rules' END,
        watched.rule_number, coalesce(new.guard, 'true'), coalesce(old.guard, 'true'),
        -- The owners of a partitioned table may have had triggers of other tables call this function.
        CASE WHEN EXISTS (SELECT FROM pg_class c WHERE c.oid = watched.relation AND c.relkind = 'p') THEN format($guard$
    IF NOT EXISTS (SELECT FROM brain.watched w
                    WHERE w.id = %s AND (w.relation = TG_RELID
                                         OR w.relation IN (SELECT pg_partition_ancestors(TG_RELID)))) THEN
        RETURN NULL;
    END IF;$guard$, watched.id) END);
    -- As a literal, which no name of a column can end.
    EXECUTE format('CREATE OR REPLACE FUNCTION brain.%1$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER %2$s'
                   ' AS %3$L; ALTER FUNCTION brain.%1$I() OWNER TO brain_owner;'
                   ' REVOKE ALL ON FUNCTION brain.%1$I() FROM PUBLIC',
                   'capture_' || watched.id, (
                       SELECT string_agg(' SET ' || setting, '') FROM (
                           SELECT 'search_path = pg_catalog, pg_temp' AS setting UNION
                           SELECT unnest(brain.settings_of(a.atttypid)) FROM pg_attribute a
                            WHERE a.attrelid = watched.relation
                              AND (a.attname = ANY (watched.columns || watched.key_columns)
                                   OR watched.rules ? a.attname::text)) settings), body);
    -- To create or attach a partition is to create its triggers, with the rights of the owner.
    FOR grantee IN SELECT a.grantee::regrole FROM pg_proc p, aclexplode(p.proacl) a
                    WHERE p.oid = brain.capture_of(watched.id)
                      AND a.grantee NOT IN (p.proowner, coalesce(partitioned_by, 0)) LOOP
        EXECUTE format('REVOKE ALL ON FUNCTION brain.%I() FROM %s', 'capture_' || watched.id, grantee);
    END LOOP;
    IF partitioned_by IS NOT NULL THEN
        EXECUTE format('GRANT EXECUTE ON FUNCTION brain.%I() TO %s', 'capture_' || watched.id, partitioned_by::regrole);
    END IF;
END $write$;
REVOKE ALL ON FUNCTION brain.write_capture FROM PUBLIC;

-- Generates the trigger functions of all watched tables anew, whenever this file is applied. The lock keeps
-- tables from being watched meanwhile, and others from generating the same functions. One that fails stays as it is,
-- and holds up no other.
CREATE OR REPLACE FUNCTION brain.write_captures() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched brain.watched;
BEGIN
    LOCK TABLE brain.watched IN SHARE ROW EXCLUSIVE MODE;
    FOR watched IN SELECT w.* FROM brain.watched w ORDER BY w.id LOOP
        BEGIN
            PERFORM brain.write_capture(watched);
        EXCEPTION WHEN OTHERS THEN
            RAISE WARNING 'the trigger function of % cannot be generated anew: %', watched.table_name, SQLERRM;
        END;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.write_captures FROM PUBLIC;

SELECT brain.write_captures();
