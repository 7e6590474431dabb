-- The watched tables, and how their columns become JSON text: in events and in snapshots alike.

SET LOCAL ROLE brain_owner;

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

-- The type of the elements of an array type, or of a domain over one, below domains; null for others.
CREATE OR REPLACE FUNCTION brain.element_of(type oid) RETURNS oid LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.base_type(e.oid)
      FROM pg_type a JOIN pg_type e ON e.oid = a.typelem AND e.typarray = a.oid
     WHERE a.oid = (SELECT brain.base_type(type))
$$;
REVOKE ALL ON FUNCTION brain.element_of FROM PUBLIC;

-- The relation of the fields of a type that is shown field by field, or of which the elements are; null for others.
CREATE OR REPLACE FUNCTION brain.relation_of_fields(type oid) RETURNS oid LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    inner_type CONSTANT oid := coalesce(brain.element_of(type), brain.base_type(type));
BEGIN
    RETURN (SELECT t.typrelid FROM pg_type t
             WHERE t.oid = inner_type AND t.typtype = 'c' AND NOT brain.is_trusted(inner_type));
END $$;
REVOKE ALL ON FUNCTION brain.relation_of_fields FROM PUBLIC;

-- Whether a type is composed of too many fields, or too deeply, to be shown field by field. The fields are counted
-- level by level, each type once with how often it occurs: there may be 2^n of them.
CREATE OR REPLACE FUNCTION brain.is_too_large(type oid) RETURNS boolean LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    types oid[] := ARRAY[type];
    counts bigint[] := '{1}';
    fields bigint := 0;
BEGIN
    FOR level IN 1 .. 10 LOOP
        SELECT array_agg(f.type), array_agg(f.count), fields + sum(f.count) INTO types, counts, fields
          FROM (SELECT a.atttypid AS type, sum(u.count)::bigint AS count
                  FROM (SELECT brain.relation_of_fields(n.type) AS relation, n.count
                          FROM unnest(types, counts) n (type, count) OFFSET 0) u
                  JOIN pg_attribute a ON a.attrelid = u.relation AND a.attnum > 0 AND NOT a.attisdropped
                 GROUP BY 1) f;
        IF types IS NULL THEN
            RETURN false;
        ELSIF fields > 200 THEN
            RETURN true;
        END IF;
    END LOOP;
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION brain.is_too_large FROM PUBLIC;

-- The expression for a value as PostgreSQL's JSON functions take it. No cast and no other function that the owner of a
-- type may define is called for it: of a type that is not trusted it is the text that its output function prints, in
-- composite types the fields one by one, unless there are too many.
CREATE OR REPLACE FUNCTION brain.json_expression(value text, type oid, depth integer DEFAULT 1) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    base oid;
    element oid;
    fields oid;
    i CONSTANT text := 'i' || depth;
BEGIN
    IF value IS NULL OR type < 16384 THEN
        RETURN value;
    END IF;
    base := brain.base_type(type);
    element := brain.element_of(base);
    fields := brain.relation_of_fields(base);
    IF brain.is_trusted(coalesce(element, base)) THEN
        RETURN value;
    ELSIF fields IS NOT NULL AND depth = 1 AND brain.is_too_large(type) THEN
        RETURN CASE WHEN element IS NULL THEN format('CASE WHEN num_nulls(%1$s) = 0 THEN concat(%1$s) END', value)
                    ELSE format('array_out(%s)::text::text[]', value) END;
    ELSIF element IS NULL AND fields IS NOT NULL THEN
        RETURN format('CASE WHEN num_nulls(%s) = 0 THEN (''{'' || %s || ''}'')::json END', value, coalesce((
            SELECT string_agg(format('%L || coalesce(to_json(%s)::text, ''null'')',
                                     CASE WHEN number > 1 THEN ',' ELSE '' END || to_json(name)::text || ':',
                                     brain.json_expression(field, atttypid, depth + 1)), ' || ' ORDER BY number)
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
-- them, and in one of another type it may call what the owner of that type has defined. What is shown as the text
-- that its output function prints needs no more than the type.
CREATE OR REPLACE FUNCTION brain.type_guard(value text, type oid, depth integer DEFAULT 1) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    fields CONSTANT oid := CASE WHEN type >= 16384 THEN brain.relation_of_fields(type) END;
BEGIN
    IF value IS NULL THEN
        RETURN NULL;  -- the table has no such column
    END IF;
    RETURN concat_ws(' AND ', format('pg_typeof(%s) = ''%s''::oid', value, type), CASE
        WHEN fields IS NOT NULL AND NOT (depth = 1 AND brain.is_too_large(type)) THEN (
            SELECT string_agg(brain.type_guard(field, atttypid, depth + 1), ' AND ' ORDER BY number)
              FROM brain.fields_of(CASE WHEN (SELECT brain.element_of(type)) IS NULL THEN value
                                        ELSE format('(%s)[1]', value) END, fields))
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
               WHEN t.typtype = 'e' AND d.type <> t.oid THEN '{array_nulls = on}'
               WHEN t.typtype = 'e' OR t.oid = ANY ('{int2,int4,int8,numeric,bool,text,varchar,bpchar,name,uuid,json,'
                                                    'jsonb,date,timestamp,time,inet,cidr}'::regtype[]) THEN '{}'
               WHEN t.oid IN ('float4'::regtype, 'float8'::regtype) THEN '{extra_float_digits = 1}'
               WHEN t.oid = 'timestamptz'::regtype THEN $${timezone = 'UTC'}$$
               WHEN t.oid = 'bytea'::regtype THEN '{bytea_output = hex}'
               WHEN t.oid = 'interval'::regtype THEN '{intervalstyle = postgres}'
               ELSE ARRAY['array_nulls = on', 'extra_float_digits = 1', 'bytea_output = hex',
                          $$datestyle = 'ISO, MDY'$$, 'intervalstyle = postgres', $$timezone = 'UTC'$$,
                          $$lc_monetary = 'C'$$, 'quote_all_identifiers = off']
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
           CASE WHEN watched.rules ? c.name
                     AND watched.attributes -> c.name ->> 1 IS DISTINCT FROM format_type(a.atttypid, NULL) THEN 'false'
                ELSE brain.type_guard(alias || '.' || quote_ident(a.attname), a.atttypid) END
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

-- The listed columns that have no text; null if all have one.
CREATE OR REPLACE FUNCTION brain.omitted_columns(names text[], is_listed boolean[], parts text[]) RETURNS text[]
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_agg(name ORDER BY number)
      FROM unnest(names, is_listed, parts) WITH ORDINALITY c (name, is_listed, part, number)
     WHERE is_listed AND part IS NULL
$$;
REVOKE ALL ON FUNCTION brain.omitted_columns FROM PUBLIC;

-- The JSON text of a value, null where it is longer than so many bytes.
CREATE OR REPLACE FUNCTION brain.text_within(value text, bytes integer) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN value IS NULL THEN 'null' WHEN bytes IS NULL OR octet_length(value) <= bytes THEN value END
$$;
REVOKE ALL ON FUNCTION brain.text_within FROM PUBLIC;

-- The JSON text of a value, null where it is longer than so many bytes or cannot be shown.
CREATE OR REPLACE FUNCTION brain.careful_text(value anyelement, bytes integer) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN brain.text_within(brain.json_of(value), bytes);
EXCEPTION WHEN OTHERS OR assert_failure THEN
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION brain.careful_text FROM PUBLIC;

-- The columns of a watched table as they are in JSON: string, number, boolean, or any.
CREATE OR REPLACE FUNCTION brain.watched_columns(OUT channel text, OUT name text, OUT kind text) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE base (channel, place, name, type) AS (
        SELECT w.channel, c.place, c.name, a.atttypid
          FROM brain.watched w CROSS JOIN unnest(w.columns) WITH ORDINALITY c (name, place)
          LEFT JOIN pg_attribute a ON a.attrelid = w.relation AND a.attname = c.name AND NOT a.attisdropped
         UNION ALL
        SELECT b.channel, b.place, b.name, t.typbasetype
          FROM base b JOIN pg_type t ON t.oid = b.type AND t.typtype = 'd')
    SELECT b.channel, b.name,
           CASE WHEN t.oid = 'boolean'::regtype THEN 'boolean'
                WHEN t.oid IN ('smallint'::regtype, 'integer'::regtype, 'bigint'::regtype, 'numeric'::regtype,
                               'real'::regtype, 'double precision'::regtype) THEN 'number'
                WHEN t.oid IS NULL OR t.typtype = 'c' OR t.typcategory = 'A'
                     OR t.oid IN ('json'::regtype, 'jsonb'::regtype)
                     OR (brain.is_trusted(t.oid) AND EXISTS (
                         SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'json'::regtype))
                    THEN 'any'
                ELSE 'string' END
      FROM base b LEFT JOIN pg_type t ON t.oid = b.type
     WHERE t.typtype IS DISTINCT FROM 'd'
     ORDER BY b.channel, b.place
$$;
REVOKE ALL ON FUNCTION brain.watched_columns FROM PUBLIC;
