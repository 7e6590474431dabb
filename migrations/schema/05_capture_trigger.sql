-- The trigger function of a watched table. It is generated for just the watched columns: a generic one
-- pays for looking its columns up in every row, and only the listed columns may ever reach the log.

SET LOCAL ROLE brain_owner;

CREATE TABLE IF NOT EXISTS brain.watched (
    id            integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation      regclass NOT NULL UNIQUE,
    channel       text     NOT NULL UNIQUE,
    key_columns   text[]   NOT NULL,
    columns       text[]   NOT NULL,
    types         jsonb    NOT NULL DEFAULT '{}',
    is_deferred   boolean  NOT NULL DEFAULT false,
    is_replicated boolean  NOT NULL DEFAULT false
);

-- The expression for the size of a value in bytes before compression: a megabyte of one letter is stored
-- in twelve kilobytes. What is stored in a kilobyte cannot have been large. The expression has to work for
-- every type, because the type of a column may change.
CREATE OR REPLACE FUNCTION brain.size_expression(value text) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('CASE WHEN pg_catalog.pg_column_size(%1$s) OPERATOR(pg_catalog.>) 1024'
                  ' THEN pg_catalog.octet_length(%1$s::pg_catalog.text)'
                  ' ELSE coalesce(pg_catalog.pg_column_size(%1$s), 0) END', value)
$$;
REVOKE ALL ON FUNCTION brain.size_expression FROM PUBLIC;

-- The expression that builds an object of names and values, fifty at a time: a function takes at most a
-- hundred arguments.
CREATE OR REPLACE FUNCTION brain.object_expression(names text[], expressions text[]) RETURNS text
LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(part, ' OPERATOR(pg_catalog.||) ' ORDER BY number)
      FROM (SELECT (position - 1) / 50 AS number,
                   format('pg_catalog.jsonb_build_object(%s)', string_agg(
                       format('%L, %s', name, value), ', ' ORDER BY position)) AS part
              FROM unnest(names, expressions) WITH ORDINALITY c (name, value, position)
             GROUP BY 1) parts
$$;
REVOKE ALL ON FUNCTION brain.object_expression FROM PUBLIC;

-- The watched columns with the expressions that read them from a row; a dropped column is null. Of former
-- values only short ones are kept.
CREATE OR REPLACE FUNCTION brain.column_expressions(watched brain.watched, names text[])
RETURNS TABLE (number bigint, name text, is_long boolean, new text, old text, former text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.number, c.name, a.attlen = -1, coalesce('NEW.' || quote_ident(a.attname), 'NULL'),
           coalesce('OLD.' || quote_ident(a.attname), 'NULL'),
           CASE WHEN a.attlen = -1
                THEN format('CASE WHEN (%s) OPERATOR(pg_catalog.<=) 65536 THEN OLD.%I END',
                            brain.size_expression('OLD.' || quote_ident(a.attname)), a.attname)
                ELSE coalesce('OLD.' || quote_ident(a.attname), 'NULL') END
      FROM unnest(names) WITH ORDINALITY c (name, number)
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = c.name
                              AND a.attnum > 0 AND NOT a.attisdropped
$$;
REVOKE ALL ON FUNCTION brain.column_expressions FROM PUBLIC;

-- Appends the events of a row after its table was altered behind its generated trigger function. It
-- reads the columns by name: one that was renamed or dropped is null, and the writer does not fail. The
-- channel, types and columns are arguments because the writer's snapshot may be older than the row of
-- brain.watched.
CREATE OR REPLACE FUNCTION brain.append_by_name(channel text, types jsonb, key_columns text[], columns text[],
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
REVOKE ALL ON FUNCTION brain.append_by_name FROM PUBLIC;

-- Generates the trigger function of one watched table.
--
-- It reads the columns directly, which takes half the time of looking them up in to_jsonb(NEW) and
-- does not read unlisted columns. The first expression of each branch reads all of them: if the table
-- has been altered, the branch fails there, before anything is written, and the columns are read by
-- name. (They stand in an array because the planner turns ROW(a, b) IS NULL into a IS NULL AND b IS
-- NULL, which stops at the first.) Rows are compared by their image, which needs no operator: the
-- operator would depend on the writer's search_path, and not every type has one.
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
      INTO old_key, new_key, old_keys, new_keys FROM brain.column_expressions(watched, watched.key_columns);
    SELECT string_agg(old, ', ' ORDER BY number), string_agg(new, ', ' ORDER BY number),
           string_agg(old || ' IS NULL', ', ' ORDER BY number),
           string_agg(new || ' IS NULL', ', ' ORDER BY number)
      INTO old_values, new_values, old_nulls, new_nulls FROM brain.column_expressions(watched, all_columns);
    SELECT string_agg(format('(%s)', brain.size_expression(new)), ' OPERATOR(pg_catalog.+) ')
               FILTER (WHERE is_long),
           brain.object_expression(array_agg(name ORDER BY number), array_agg(new ORDER BY number)),
           brain.object_expression(array_agg(name ORDER BY number), array_agg(c.former ORDER BY number)),
           string_agg(format('CASE WHEN pg_catalog.record_image_ne(ROW(%s), ROW(%s))'
                             ' THEN pg_catalog.jsonb_build_object(%L, %s) ELSE ''{}'' END',
                             old, new, name, c.former), ' OPERATOR(pg_catalog.||) ' ORDER BY number)
      INTO new_size, data, former, changed FROM brain.column_expressions(watched, watched.columns) c;
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
        brain.insert_statement(channel, quote_nullable(watched.types ->> 'delete'), $$'D'$$, old_key, 'NULL',
                               former),
        brain.insert_statement(channel, quote_nullable(watched.types ->> 'update'), $$'U'$$, new_key, data,
                               changed),
        brain.insert_statement(channel, quote_nullable(watched.types ->> 'insert'), $$'I'$$, new_key, data,
                               'NULL'),
        channel, watched.types ->> 'truncate', brain.node_is_parked(), old_nulls, new_nulls);
END $write$;
REVOKE ALL ON FUNCTION brain.write_capture FROM PUBLIC;

-- Generates brain.append and the trigger function of every watched table, at a rotation of the slots and
-- whenever this file is applied. The lock keeps tables from being watched meanwhile, and others from
-- generating the same functions.
CREATE OR REPLACE FUNCTION brain.write_functions() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE brain.watched IN SHARE ROW EXCLUSIVE MODE;
    PERFORM brain.write_append();
    PERFORM brain.write_capture(w) FROM brain.watched w;
END $$;
REVOKE ALL ON FUNCTION brain.write_functions FROM PUBLIC;

SELECT brain.write_functions();
