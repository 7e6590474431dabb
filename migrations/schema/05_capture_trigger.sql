-- The trigger function of a watched table. It is generated for just the watched columns: a generic one
-- pays for looking its columns up in every row, and only the listed columns may ever reach the log.

SET LOCAL ROLE brain_owner;

-- Numbers the row rules: an event has that of the rules by which it is decided who may see it. Clients whose
-- access was decided by former rules do not get it.
CREATE SEQUENCE IF NOT EXISTS brain.rule_number;

CREATE TABLE IF NOT EXISTS brain.watched (
    id            integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation      regclass NOT NULL UNIQUE,
    channel       text     NOT NULL UNIQUE,
    key_columns   text[]   NOT NULL,
    columns       text[]   NOT NULL,
    types         jsonb    NOT NULL DEFAULT '{}',
    is_deferred   boolean  NOT NULL DEFAULT false,
    is_replicated boolean  NOT NULL DEFAULT false,
    column_bytes  integer  NOT NULL DEFAULT 262144,   -- a larger value is omitted
    row_bytes     integer  NOT NULL DEFAULT 1048576,  -- of data and old together; above, the largest are omitted
    table_name    text     NOT NULL,                  -- when it was watched: public.orders
    attributes    jsonb    NOT NULL DEFAULT '{}',     -- then, too: {"id": [1, "integer"]}, number and type
    rules         jsonb    NOT NULL DEFAULT '{}',     -- who may see a row: {"customer_id": "sub"}, column = claim
    exempt        jsonb    NOT NULL DEFAULT '{}',     -- whom the rules do not restrict: {"role": "admin"}
    rule_number   bigint   NOT NULL DEFAULT 0,        -- of rules and exempt
    row_security  text     NOT NULL DEFAULT 'refused', -- or ignored: that of the table does not apply to events
    known_limits  text[]   NOT NULL DEFAULT '{}'      -- what brain.watch has warned of
);

-- The type below domains.
CREATE OR REPLACE FUNCTION brain.base_type(type oid) RETURNS oid LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (type) AS (
        SELECT type UNION ALL
        SELECT t.typbasetype FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype = 'd')
    SELECT b.type FROM base b JOIN pg_type t ON t.oid = b.type WHERE t.typtype <> 'd'
$$;
REVOKE ALL ON FUNCTION brain.base_type FROM PUBLIC;

-- Whether PostgreSQL's own functions show the values of a type: of its own types, and of those that an extension of a
-- superuser brings. For others, to_json calls what the owner of the type has made its cast to json, at any time.
CREATE OR REPLACE FUNCTION brain.is_trusted(type oid) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT type < 16384
        OR EXISTS (SELECT FROM pg_depend d JOIN pg_type t ON t.oid = d.objid JOIN pg_roles r ON r.oid = t.typowner
                    WHERE d.classid = 'pg_type'::regclass AND d.objid = type AND d.deptype = 'e' AND r.rolsuper)
$$;
REVOKE ALL ON FUNCTION brain.is_trusted FROM PUBLIC;

-- The expression for a value as PostgreSQL's JSON functions take it. No cast and no other function that the owner of a
-- type may define is called for it: of a type that is not trusted it is the text that its output function prints, in
-- composite types the fields one by one.
CREATE OR REPLACE FUNCTION brain.json_expression(value text, type oid, depth integer DEFAULT 1) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base CONSTANT oid := brain.base_type(type);
    element CONSTANT oid := (SELECT brain.base_type(e.oid) FROM pg_type e WHERE e.typarray = base);
    fields CONSTANT oid := (SELECT t.typrelid FROM pg_type t
                             WHERE t.oid = coalesce(element, base) AND t.typtype = 'c');
    i CONSTANT text := 'i' || depth;
BEGIN
    IF value IS NULL OR brain.is_trusted(coalesce(element, base)) THEN
        RETURN value;
    ELSIF element IS NULL AND fields IS NOT NULL THEN
        RETURN format('CASE WHEN num_nulls(%s) = 0 THEN (''{'' || %s || ''}'')::json END', value, coalesce((
            SELECT string_agg(format('%L || coalesce(to_json(%s)::text, ''null'')',
                                     CASE WHEN number > 1 THEN ',' ELSE '' END || to_json(name)::text || ':',
                                     brain.json_expression(field, atttypid, depth)), ' || ' ORDER BY number)
              FROM brain.fields_of(value, fields)), ''''''));
    ELSIF fields IS NOT NULL THEN
        RETURN format('CASE WHEN %1$s IS NULL THEN NULL WHEN coalesce(array_ndims(%1$s), 1) = 1 THEN ('
                      'SELECT (''['' || coalesce(string_agg(coalesce(to_json(%2$s)::text, ''null''), '','' '
                      'ORDER BY %3$s), '''') || '']'')::json FROM generate_subscripts(%1$s, 1) %3$s) '
                      'ELSE to_json(array_out(%1$s)::text::text[]) END',
                      value, brain.json_expression(format('(%s)[%s]', value, i), element, depth + 1), i);
    ELSIF element IS NOT NULL THEN
        RETURN format('array_out(%s)::text::text[]', value);
    END IF;
    RETURN format('CASE WHEN %1$s IS NOT NULL THEN concat(%1$s) END', value);
END $$;
REVOKE ALL ON FUNCTION brain.json_expression FROM PUBLIC;

-- The fields of a composite value, with the expressions that read them.
CREATE OR REPLACE FUNCTION brain.fields_of(value text, fields oid)
RETURNS TABLE (number bigint, name text, atttypid oid, field text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT row_number() OVER (ORDER BY a.attnum), a.attname::text, a.atttypid, format('(%s).%I', value, a.attname)
      FROM pg_attribute a WHERE a.attrelid = fields AND a.attnum > 0 AND NOT a.attisdropped
$$;
REVOKE ALL ON FUNCTION brain.fields_of FROM PUBLIC;

-- The expression for "the value has still this type, and its fields have theirs": an expression was generated for
-- them, and in one of another type it may call what the owner of that type has defined.
CREATE OR REPLACE FUNCTION brain.type_guard(value text, type oid) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base CONSTANT oid := brain.base_type(type);
    element CONSTANT oid := (SELECT brain.base_type(e.oid) FROM pg_type e WHERE e.typarray = base);
    fields CONSTANT oid := (SELECT t.typrelid FROM pg_type t
                             WHERE t.oid = coalesce(element, base) AND t.typtype = 'c');
BEGIN
    IF value IS NULL THEN
        RETURN NULL;  -- the table has no such column
    END IF;
    RETURN concat_ws(' AND ', format('pg_typeof(%s) = ''%s''::oid', value, type), CASE
        WHEN NOT brain.is_trusted(coalesce(element, base)) THEN (
            SELECT string_agg(brain.type_guard(field, atttypid), ' AND ' ORDER BY number)
              FROM brain.fields_of(CASE WHEN element IS NULL THEN value ELSE format('(%s)[1]', value) END, fields))
        END);
END $$;
REVOKE ALL ON FUNCTION brain.type_guard FROM PUBLIC;

-- The JSON text of a value of any type.
CREATE OR REPLACE FUNCTION brain.json_of(value anyelement) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    result text;
BEGIN
    EXECUTE format('SELECT to_json(%s)::text', brain.json_expression('$1', pg_typeof(value))) INTO result USING value;
    RETURN result;
END $$;
REVOKE ALL ON FUNCTION brain.json_of FROM PUBLIC;

-- The expression for the size of a value by its header alone. A compressed one counts four times, which is what
-- JSON compresses to.
CREATE OR REPLACE FUNCTION brain.stored_size(value text) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('pg_column_size(%1$s)::bigint'
                  ' * CASE WHEN pg_column_compression(%1$s) IS NULL THEN 1 ELSE 4 END', value)
$$;
REVOKE ALL ON FUNCTION brain.stored_size FROM PUBLIC;

-- The expression for the size of a value in bytes, by its header where that tells it; null for types of a
-- fixed length. Only of text and bytea does a header tell the size before compression. JSON and arrays may
-- compress to a hundredth: one whose stored size is not over `column_bytes` is fetched, for a lower bound of
-- its JSON. An element of an array takes two bytes, and what jsonb has for a number of one digit twelve.
CREATE OR REPLACE FUNCTION brain.size_expression(value text, type oid, column_bytes integer) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
               WHEN t.typlen <> -1 THEN NULL
               WHEN t.oid IN ('text'::regtype, 'varchar'::regtype, 'bpchar'::regtype, 'bytea'::regtype)
                   THEN format('octet_length(%s)', value)
               WHEN EXISTS (SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'text'::regtype
                               AND c.castmethod = 'b') AND brain.is_trusted(t.oid)
                   THEN format('octet_length(%s::text)', value)
               WHEN least_bytes IS NOT NULL
                   THEN format('CASE WHEN pg_column_compression(%1$s) IS NULL THEN pg_column_size(%1$s)'
                               ' WHEN pg_column_size(%1$s) > %2$s THEN %2$s * 4 + 4'
                               ' ELSE greatest(pg_column_size(%1$s) * 4, %3$s) END',
                               value, column_bytes / 4, format(least_bytes, value))
               ELSE brain.stored_size(value)
           END
      FROM pg_type t
      LEFT JOIN pg_type element ON element.typarray = t.oid,
           LATERAL (SELECT CASE WHEN t.oid = 'json'::regtype THEN 'octet_length(%1$s::text)'
                                WHEN t.oid = 'jsonb'::regtype THEN $sql$pg_column_size(%1$s #> '{}') / 4$sql$
                                WHEN element.typlen = -1
                                    THEN 'pg_column_size(array_cat(%1$s, NULL)) / 4, cardinality(%1$s)::bigint * 2'
                                WHEN element.typlen IS NOT NULL THEN 'cardinality(%1$s)::bigint * 2'
                           END AS least_bytes) l
     WHERE t.oid = (SELECT brain.base_type(type))
$$;
REVOKE ALL ON FUNCTION brain.size_expression FROM PUBLIC;

-- The settings on which the JSON text of values of a type depends; those of the writer's session must not
-- show. Each costs a writer, so they are set only where a column has such a type.
CREATE OR REPLACE FUNCTION brain.settings_of(type oid) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $function$
    SELECT CASE
               WHEN EXISTS (SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'json'::regtype
                               AND c.castmethod = 'f')
                   THEN brain.settings_of('box'::regtype)  -- whatever the function of the cast does
               WHEN t.typtype = 'e' OR t.oid = ANY ('{int2,int4,int8,numeric,bool,text,varchar,bpchar,name,uuid,json,'
                                                    'jsonb,date,timestamp,time,inet,cidr}'::regtype[]) THEN '{}'
               WHEN t.oid IN ('float4'::regtype, 'float8'::regtype) THEN '{extra_float_digits = 1}'
               WHEN t.oid = 'timestamptz'::regtype THEN $${timezone = 'UTC'}$$
               WHEN t.oid = 'bytea'::regtype THEN '{bytea_output = hex}'
               WHEN t.oid = 'interval'::regtype THEN '{intervalstyle = postgres}'
               ELSE ARRAY['extra_float_digits = 1', 'bytea_output = hex', $$datestyle = 'ISO, MDY'$$,
                          'intervalstyle = postgres', $$timezone = 'UTC'$$, $$lc_monetary = 'C'$$,
                          'quote_all_identifiers = off']
           END
      FROM (SELECT brain.base_type(type) AS type) d
      JOIN pg_type t ON t.oid = CASE
               WHEN EXISTS (SELECT FROM pg_type a WHERE a.oid = d.type AND a.typcategory = 'A')
                   THEN (SELECT brain.base_type(a.typelem) FROM pg_type a WHERE a.oid = d.type)
               ELSE d.type END
$function$;
REVOKE ALL ON FUNCTION brain.settings_of FROM PUBLIC;

-- The expression that builds a JSON object of names and values, as text, fifty at a time: a function takes
-- at most a hundred arguments.
CREATE OR REPLACE FUNCTION brain.object_expression(names text[], expressions text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE count(*)
               WHEN 0 THEN NULL
               WHEN 1 THEN min(part) || '::text'
               ELSE format('''{'' || %s || ''}''',
                           string_agg(format('left(substr(%s::text, 2), -1)', part), ' || '', '' || ' ORDER BY number))
           END
      FROM (SELECT (position - 1) / 50 AS number,
                   format('json_build_object(%s)', string_agg(
                       format('%L, %s', name, value), ', ' ORDER BY position)) AS part
              FROM unnest(names, expressions) WITH ORDINALITY c (name, value, position)
             GROUP BY 1) parts
$$;
REVOKE ALL ON FUNCTION brain.object_expression FROM PUBLIC;

-- The columns of the key, of the row rules and the listed ones, in this order, with the expressions that read
-- them from the row `alias`, by themselves and as JSON; a column that the table does not have is null, and is_missing.
CREATE OR REPLACE FUNCTION brain.column_expressions(watched brain.watched, alias text)
RETURNS TABLE (number bigint, name text, is_key boolean, is_rule boolean, is_listed boolean, is_missing boolean,
               value text, size text, shown text, guard text)
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT c.number, c.name, c.number <= cardinality(watched.key_columns), watched.rules ? c.name,
           c.name = ANY (watched.columns), a.attname IS NULL,
           coalesce(alias || '.' || quote_ident(a.attname), 'NULL::text'),
           brain.size_expression(alias || '.' || quote_ident(a.attname), a.atttypid, watched.column_bytes),
           coalesce(brain.json_expression(alias || '.' || quote_ident(a.attname), a.atttypid), 'NULL::text'),
           brain.type_guard(alias || '.' || quote_ident(a.attname), a.atttypid)
      FROM unnest(watched.key_columns || ARRAY(
               SELECT n.name FROM (SELECT r AS name, 0 AS place FROM jsonb_object_keys(watched.rules) r
                                    UNION ALL
                                   SELECT * FROM unnest(watched.columns) WITH ORDINALITY) n
                WHERE n.name <> ALL (watched.key_columns)
                GROUP BY n.name ORDER BY min(n.place), n.name)) WITH ORDINALITY c (name, number)
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = c.name
                              AND a.attnum > 0 AND NOT a.attisdropped
$$;
REVOKE ALL ON FUNCTION brain.column_expressions FROM PUBLIC;

-- The listed columns of a row as a JSON object, from the texts of its values; a null text is left out.
CREATE OR REPLACE FUNCTION brain.object_of(names text[], is_listed boolean[], parts text[]) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT '{' || coalesce(string_agg(to_json(name)::text || ' : ' || part, ', ' ORDER BY number), '') || '}'
      FROM unnest(names, is_listed, parts) WITH ORDINALITY c (name, is_listed, part, number)
     WHERE is_listed AND part IS NOT NULL
$$;
REVOKE ALL ON FUNCTION brain.object_of FROM PUBLIC;

-- Leaves out the largest texts until all together have at most so many bytes, but never the first `kept`, those
-- of keys and row rules, and none of up to 8 KiB: the values of a filter are shorter, so it finds every column
-- that it needs.
CREATE OR REPLACE FUNCTION brain.leave_out_largest(INOUT new_parts text[], INOUT old_parts text[],
                                                   kept integer, most_bytes integer)
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    excess bigint;
    part record;
BEGIN
    SELECT sum(octet_length(p)) - most_bytes INTO excess FROM unnest(new_parts || old_parts) p;
    FOR part IN
        SELECT n.number, n.is_old, octet_length(n.text) AS bytes
          FROM (SELECT number, false AS is_old, text FROM unnest(new_parts) WITH ORDINALITY c (text, number)
                UNION ALL
                SELECT number, true, text FROM unnest(old_parts) WITH ORDINALITY c (text, number)) n
         WHERE n.number > kept AND octet_length(n.text) > 8192 ORDER BY bytes DESC
    LOOP
        EXIT WHEN excess <= 0;
        IF part.is_old THEN
            old_parts[part.number] := NULL;
        ELSE
            new_parts[part.number] := NULL;
        END IF;
        excess := excess - part.bytes;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.leave_out_largest FROM PUBLIC;

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
            THEN 'a row was changed whose key, or a column of a row rule, is too large or cannot be shown'
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

-- The listed columns that have no text; null if all have one.
CREATE OR REPLACE FUNCTION brain.omitted_columns(names text[], is_listed boolean[], parts text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(name ORDER BY number)
      FROM unnest(names, is_listed, parts) WITH ORDINALITY c (name, is_listed, part, number)
     WHERE is_listed AND part IS NULL
$$;
REVOKE ALL ON FUNCTION brain.omitted_columns FROM PUBLIC;

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
-- function, a statement of its own reads it.
CREATE OR REPLACE FUNCTION brain.parts_statement(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format($part$
        BEGIN
            IF %7$s THEN
                part := CASE WHEN %2$s THEN NULL ELSE coalesce(to_json(%3$s)::text, 'null') END;
            ELSE
                EXECUTE %4$L INTO part USING r;
            END IF;
        EXCEPTION WHEN undefined_column THEN
            part := %6$s;
        WHEN OTHERS OR assert_failure THEN
            BEGIN
                EXECUTE %4$L INTO part USING r;
            EXCEPTION WHEN OTHERS OR assert_failure THEN
                part := NULL;
            END;
        END;
        parts[%1$s] := %5$s;$part$,
        number,
        CASE WHEN (is_key OR is_rule) AND is_missing THEN 'true'
             ELSE coalesce(size || ' > ' || watched.column_bytes, 'false') END, shown,
        format('SELECT coalesce(brain.json_of(($1).%I), ''null'')', name),
        -- The header of a text tells how large it is; of another value it may be known only now.
        CASE WHEN size LIKE 'octet_length%' THEN 'part'
             ELSE format('CASE WHEN octet_length(part) <= %s THEN part END', watched.column_bytes) END,
        CASE WHEN is_key OR is_rule THEN 'NULL' ELSE '''null''' END, coalesce(guard, 'true')),
        '' ORDER BY number)
      FROM brain.column_expressions(watched, 'r')
$$;
REVOKE ALL ON FUNCTION brain.parts_statement FROM PUBLIC;

-- The expression for "a column with no text on either side has changed". Large values are not
-- fetched to compare them. One that was not written again is stored at the same place, which is known from
-- PostgreSQL 17 on; before, an update of a row with a large value counts as a change.
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
               CASE WHEN o.size LIKE 'octet_length%' THEN format('CASE WHEN %s THEN %s END', o.guard, o.size)
                    ELSE brain.stored_size(o.value) END,
               CASE WHEN n.size LIKE 'octet_length%' THEN format('CASE WHEN %s THEN %s END', n.guard, n.size)
                    ELSE brain.stored_size(n.value) END),
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

-- Generates the trigger function of one watched table.
--
-- It reads the columns directly, which takes half the time of looking them up in to_json(NEW) and does not
-- read unlisted columns. It reads none that has another type by now: what its owner may define for that would run with
-- the rights of brain_owner. No column, whatever its type, size and rights, may fail the writer: everything
-- that reads one is in a block that catches errors (OTHERS alone would not catch failed assertions) and
-- writes nothing. Sizes are read in expressions that PL/pgSQL evaluates itself; a statement would fetch
-- the values. If a value is large, or anything fails, the columns are read one by one. A key of more
-- than 1300 bytes may have more than 8192 as JSON. Rows are compared by their texts, which are needed
-- anyway: to compare them by their images as well takes longer.
CREATE OR REPLACE FUNCTION brain.write_capture(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
DECLARE
    new record;
    old record;
    body text;
    channel CONSTANT text := quote_literal(watched.channel);
    -- The variables of the rules are written only where there are some: that costs other writers nothing.
    has_rules CONSTANT boolean := watched.rules <> '{}';
    rule_number CONSTANT text := watched.rule_number;
    rules CONSTANT text := CASE WHEN has_rules THEN 'rules' END;
    former_rules CONSTANT text := CASE WHEN has_rules THEN 'former_rules' END;
    most_bytes CONSTANT integer := CASE
        -- Without a column of the key or of a rule, every row is read column by column.
        WHEN EXISTS (SELECT FROM brain.column_expressions(watched, 'NEW') c
                      WHERE (c.is_key OR c.is_rule) AND c.is_missing) THEN -1
        ELSE least(watched.column_bytes, watched.row_bytes) END;
BEGIN
    SELECT format('json_build_array(%s)::text', string_agg(shown, ', ' ORDER BY number) FILTER (WHERE is_key)) AS key,
           brain.object_expression(array_agg(name ORDER BY number) FILTER (WHERE is_listed),
                                   array_agg(shown ORDER BY number) FILTER (WHERE is_listed)) AS data,
           string_agg(size, ', ' ORDER BY number) FILTER (WHERE is_key OR is_rule) AS key_sizes,
           string_agg(size, ', ' ORDER BY number) FILTER (WHERE NOT is_key AND NOT is_rule) AS sizes,
           CASE WHEN has_rules THEN brain.object_expression(
               ARRAY[''] || array_agg(name ORDER BY number) FILTER (WHERE is_rule),
               rule_number || array_agg(shown ORDER BY number) FILTER (WHERE is_rule)) END AS rules,
           array_agg(name ORDER BY number) AS names, array_agg(is_listed ORDER BY number) AS is_listed,
           array_agg(is_rule ORDER BY number) AS is_rule, string_agg(guard, ' AND ' ORDER BY number) AS guard
      INTO new FROM brain.column_expressions(watched, 'NEW');
    SELECT format('json_build_array(%s)::text', string_agg(shown, ', ' ORDER BY number) FILTER (WHERE is_key)) AS key,
           brain.object_expression(array_agg(name ORDER BY number) FILTER (WHERE is_listed),
                                   array_agg(shown ORDER BY number) FILTER (WHERE is_listed)) AS data,
           string_agg(size, ', ' ORDER BY number) FILTER (WHERE is_key OR is_rule) AS key_sizes,
           string_agg(size, ', ' ORDER BY number) FILTER (WHERE NOT is_key AND NOT is_rule) AS sizes,
           CASE WHEN has_rules THEN brain.object_expression(
               ARRAY[''] || array_agg(name ORDER BY number) FILTER (WHERE is_rule),
               rule_number || array_agg(shown ORDER BY number) FILTER (WHERE is_rule)) END AS rules,
           string_agg(guard, ' AND ' ORDER BY number) AS guard
      INTO old FROM brain.column_expressions(watched, 'OLD');
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
BEGIN
    IF current_setting('brain.capture', true) = 'off' THEN
        IF brain.reset_instead(%1$s) THEN
            RETURN NULL;
        END IF;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        BEGIN
            IF (CASE WHEN %28$s THEN (%2$s) IS NOT TRUE END) THEN
                key := %3$s;
                former_key := %4$s;
                data := %5$s;
                former := %6$s;%23$s%24$s
                IF data = former AND key = former_key%26$s THEN
                    RETURN NULL;
                END IF;
                is_complete := octet_length(data) + octet_length(former) <= %7$s;
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
            IF (CASE WHEN %28$s THEN (%8$s) IS NOT TRUE END) THEN
                key := %3$s;
                data := %5$s;%23$s
                is_complete := octet_length(data) <= %7$s;
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
            IF (CASE WHEN %29$s THEN (%9$s) IS NOT TRUE END) THEN
                key := %4$s;
                former := %6$s;%24$s
                is_complete := octet_length(former) <= %7$s;
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
            IF NOT (%17$s) THEN
                RETURN NULL;
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
        E'\n                rules := ' || new.rules || ';', E'\n                former_rules := ' || old.rules || ';',
        new.is_rule, CASE WHEN has_rules THEN ' AND rules = former_rules' END,
        watched.rule_number, coalesce(new.guard, 'true'), coalesce(old.guard, 'true'));
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
END $write$;
REVOKE ALL ON FUNCTION brain.write_capture FROM PUBLIC;

-- Generates the trigger functions of all watched tables anew, whenever this file is applied. The lock keeps
-- tables from being watched meanwhile, and others from generating the same functions.
CREATE OR REPLACE FUNCTION brain.write_captures() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE brain.watched IN SHARE ROW EXCLUSIVE MODE;
    PERFORM brain.write_capture(w) FROM brain.watched w;
END $$;
REVOKE ALL ON FUNCTION brain.write_captures FROM PUBLIC;

SELECT brain.write_captures();
