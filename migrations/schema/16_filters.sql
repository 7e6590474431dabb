-- Filters of subscriptions: what their values are for the types of columns, and the condition that they are in SQL.
-- brain/message/condition.py evaluates the same on events.

SET LOCAL ROLE brain_owner;

-- How values of a type are compared, by what is below domains. `json`: null or not; `other`: by the text that they have
-- in events, equal or not; `padded`: spaces at the end do not count; all else in the order of PostgreSQL.
CREATE OR REPLACE FUNCTION brain.filter_kind(base oid) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
               WHEN t.typtype = 'c' OR t.typcategory = 'A' OR t.oid IN ('json'::regtype, 'jsonb'::regtype)
                    OR (t.oid >= 16384 AND brain.is_trusted(t.oid) AND EXISTS (
                        SELECT FROM pg_cast c WHERE c.castsource = t.oid AND c.casttarget = 'json'::regtype))
                   THEN 'json'
               WHEN t.typtype = 'e' THEN 'enum'
               WHEN t.oid = ANY ('{int2,int4,int8,numeric,float4,float8}'::regtype[]) THEN 'number'
               WHEN t.oid = ANY ('{text,varchar}'::regtype[]) THEN 'text'
               WHEN t.oid = 'bpchar'::regtype THEN 'padded'
               WHEN t.oid = 'bool'::regtype THEN 'boolean'
               WHEN t.oid = ANY ('{uuid,date,time,timetz,timestamp,timestamptz}'::regtype[]) THEN t.typname::text
               ELSE 'other'
           END
      FROM pg_type t WHERE t.oid = base
$$;
REVOKE ALL ON FUNCTION brain.filter_kind FROM PUBLIC;

-- The types of which PostgreSQL's own input is not asked: what it says depends on the catalogs, or it is no pure
-- function of its text. A value of such a type is the text that a filter has.
CREATE OR REPLACE FUNCTION brain.unread_types() RETURNS oid[] LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT '{regproc,regprocedure,regoper,regoperator,regclass,regtype,regconfig,regdictionary,regnamespace,regrole,
             regcollation,aclitem,xml,refcursor}'::regtype[]::oid[]
$$;
REVOKE ALL ON FUNCTION brain.unread_types FROM PUBLIC;

-- How the text of a value is to be written, as a pattern; null if PostgreSQL's input decides alone. That would read
-- "today", drop the time zone of a timestamp and the time of a date, and add the zone of the session.
CREATE OR REPLACE FUNCTION brain.filter_pattern(kind text) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE kind
               WHEN 'number' THEN '[+-]?\d+(\.\d+)?([eE][+-]?\d{1,3})?|NaN|-?Infinity'
               WHEN 'date' THEN day || '( BC)?|-?infinity'
               WHEN 'time' THEN clock
               WHEN 'timetz' THEN clock || zone
               WHEN 'timestamp' THEN day || '([T ]' || clock || ')?( BC)?|-?infinity'
               WHEN 'timestamptz' THEN day || '[T ]' || clock || zone || '( BC)?|-?infinity'
           END
      FROM (VALUES ('\d{4,7}-\d{2}-\d{2}', '\d{2}:\d{2}(:\d{2}(\.\d{1,6})?)?',
                    '(Z|[+-]\d{2}(:\d{2}(:\d{2})?)?)')) p (day, clock, zone)
$$;
REVOKE ALL ON FUNCTION brain.filter_pattern FROM PUBLIC;

-- The JSON text of what a filter says for a column, null if that is no value of its type. What the owner of a type may
-- have defined is not called: labels of enums are looked up, and other types are PostgreSQL's own, without modifier.
CREATE OR REPLACE FUNCTION brain.filter_operand(value jsonb, base oid, kind text) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET bytea_output = hex SET datestyle = 'ISO, MDY'
SET intervalstyle = postgres SET timezone = 'UTC' SET lc_monetary = 'C' SET quote_all_identifiers = off AS $$
DECLARE
    said text := value #>> '{}';
    type_name CONSTANT name := (SELECT typname FROM pg_type WHERE oid = base);
    result text;
BEGIN
    IF (kind = 'boolean') <> (jsonb_typeof(value) = 'boolean')
       OR jsonb_typeof(value) NOT IN ('boolean', 'string', CASE WHEN kind = 'number' THEN 'number' ELSE 'string' END)
       OR said !~ ('^(' || brain.filter_pattern(kind) || ')$') THEN
        RETURN NULL;
    ELSIF kind = 'enum' THEN
        RETURN (SELECT to_json(e.enumlabel)::text FROM pg_enum e WHERE e.enumtypid = base AND e.enumlabel = said);
    ELSIF kind = 'padded' THEN
        RETURN to_json(rtrim(said, ' '))::text;
    ELSIF base >= 16384 OR base = ANY (brain.unread_types()) THEN
        RETURN to_json(said)::text;
    ELSIF kind = 'number' THEN
        said := trim_scale(said::numeric)::text;  -- 1.0 is an integer
    END IF;
    EXECUTE format('SELECT to_json($1::pg_catalog.%I)::text', type_name) INTO result USING said;
    -- Those cut off what is too long.
    RETURN CASE WHEN type_name NOT IN ('name', 'char') OR result = to_json(said)::text THEN result END;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION brain.filter_operand FROM PUBLIC;

-- What a comparison of a filter is for a watched table: what is wrong with it; or the kind of its column, the values
-- that it has in events, and the condition for the rows `r` in SQL. For the order of an enum, the values are the labels
-- that match: they are those that the type has now.
CREATE OR REPLACE FUNCTION brain.filter_comparison(watched brain.watched, name text, comparison text, value jsonb,
                                                   OUT problem text, OUT kind text, OUT operands text[],
                                                   OUT condition text)
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    symbol CONSTANT text := '{"eq": "=", "neq": "<>", "gt": ">", "gte": ">=", "lt": "<", "lte": "<="}'::jsonb
                            ->> comparison;
    a record;
    column_value text;
    one jsonb;
BEGIN
    SELECT c.attname, c.atttypid, c.base, t.typname, brain.filter_kind(c.base) AS kind, l.collname,
           l.collisdeterministic IS NOT FALSE AS is_deterministic, format_type(c.atttypid, c.atttypmod) AS type,
           CASE WHEN c.base < 16384 THEN format('pg_catalog.%I', t.typname) ELSE c.base::regtype::text END AS type_name
      INTO a
      FROM (SELECT p.*, brain.base_type(p.atttypid) AS base FROM pg_attribute p
             WHERE p.attrelid = watched.relation AND p.attname = name AND p.attnum > 0 AND NOT p.attisdropped
               AND name = ANY (watched.columns) OFFSET 0) c
      JOIN pg_type t ON t.oid = c.base
      LEFT JOIN pg_collation l ON l.oid = c.attcollation;
    IF a.attname IS NULL THEN
        problem := CASE WHEN name = ANY (watched.columns)
            THEN format('%s: the column %s was dropped or renamed', watched.channel, name)
            ELSE format('%s has no column %s; it has %s', watched.channel, left(name, 50),
                        array_to_string(watched.columns, ', ')) END;
    ELSIF comparison = 'is' THEN
        problem := CASE WHEN value <> 'null' THEN format('%s: only {"is": null} exists', name) END;
    ELSIF symbol IS NULL AND comparison <> 'in' THEN
        problem := format('%s: there is no comparison %s', name, left(comparison, 50));
    ELSIF a.kind = 'json' THEN
        problem := format('%s: values of type %s cannot be compared: {"is": null} can be asked, or a generated column '
                          'of another type can be watched', name, a.type);
    ELSIF NOT a.is_deterministic THEN
        problem := format('%s: by its collation %s different texts are equal: {"is": null} can be asked, or a '
                          'generated column of type %s COLLATE "C" can be watched', name, a.collname, a.type);
    ELSIF a.kind = 'other' AND comparison NOT IN ('eq', 'neq', 'in') THEN
        problem := format('%s: values of type %s have no exact order here: their texts can be compared by eq, neq and '
                          'in, or a generated column of another type can be watched', name, a.type);
    END IF;
    IF problem IS NOT NULL THEN
        RETURN;
    END IF;
    kind := a.kind;
    column_value := CASE
        WHEN kind IN ('json', 'other') AND a.base < 16384 THEN format('to_json(r.%I)::text', name)
        WHEN kind IN ('json', 'other') THEN format('brain.careful_text(r.%I, NULL)', name)
        WHEN a.atttypid <> a.base THEN format('(r.%I)::%s', name, a.type_name)
        ELSE format('r.%I', name) END;
    IF comparison = 'is' THEN
        condition := CASE kind
            -- A null of JSON looks like one, and one of a composite type with nulls does not.
            WHEN 'json' THEN format($sql$coalesce(btrim(%s, E' \n\r\t') = 'null', %s)$sql$, column_value,
                                    (a.base < 16384)::text)
            ELSE format('r.%I IS NULL', name) END;
        RETURN;
    END IF;
    operands := '{}';
    FOR one IN SELECT jsonb_array_elements(CASE WHEN comparison = 'in' AND jsonb_typeof(value) = 'array' THEN value
                                                ELSE jsonb_build_array(value) END) LOOP
        operands := operands || brain.filter_operand(one, a.base, kind);
        IF operands[cardinality(operands)] IS NULL THEN
            problem := format('%s is no value of %s, which is of type %s%s', left(one::text, 100), name, a.type, CASE
                WHEN kind = 'timestamptz' THEN ', and is written like 2026-01-31T12:00:00Z'
                WHEN kind = 'timestamp' THEN ', and is written like 2026-01-31T12:00:00, without a time zone'
                WHEN kind = 'timetz' THEN ', and is written like 12:00:00Z'
                WHEN kind = 'date' THEN ', and is written like 2026-01-31'
                WHEN kind = 'enum' THEN format(': %s', (
                    SELECT string_agg(l.label, ', ' ORDER BY l.place)
                      FROM (SELECT e.enumlabel AS label, e.enumsortorder AS place FROM pg_enum e
                             WHERE e.enumtypid = a.base ORDER BY e.enumsortorder LIMIT 20) l)) END);
            RETURN;
        END IF;
    END LOOP;
    condition := brain.comparison_condition(column_value, a.type_name, kind, symbol, operands);
    IF kind = 'enum' AND symbol IN ('<', '<=', '>', '>=') THEN
        operands := ARRAY(
            SELECT to_json(e.enumlabel)::text
              FROM pg_enum e JOIN pg_enum o ON o.enumtypid = a.base AND o.enumlabel = operands[1]::jsonb #>> '{}'
             WHERE e.enumtypid = a.base
               AND CASE symbol WHEN '<' THEN e.enumsortorder < o.enumsortorder
                               WHEN '<=' THEN e.enumsortorder <= o.enumsortorder
                               WHEN '>' THEN e.enumsortorder > o.enumsortorder
                               ELSE e.enumsortorder >= o.enumsortorder END
             ORDER BY e.enumsortorder);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.filter_comparison FROM PUBLIC;

-- The condition that a value compares so with values, which are JSON texts; without a symbol it equals one of them.
-- Texts are ordered by code point: as bytes, where the encoding of the database has the same order, otherwise as UTF-8.
CREATE OR REPLACE FUNCTION brain.comparison_condition(value text, type_name text, kind text, symbol text,
                                                      operands text[]) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN kind IN ('text', 'padded') AND symbol IN ('<', '<=', '>', '>=')
            THEN format(CASE WHEN getdatabaseencoding() IN ('UTF8', 'LATIN1', 'SQL_ASCII')
                             THEN '%1$s COLLATE pg_catalog."C" OPERATOR(pg_catalog.%2$s) %3$L::%4$s'
                             ELSE 'convert_to((%1$s)::pg_catalog.text, ''UTF8'') OPERATOR(pg_catalog.%2$s) '
                                  'convert_to(%3$L, ''UTF8'')' END,
                        value, symbol, plain[1], type_name)
        WHEN symbol IS NOT NULL
            THEN format('%s OPERATOR(pg_catalog.%s) %L::%s', value, symbol, plain[1], compared_type)
        ELSE format('%s OPERATOR(pg_catalog.=) ANY (%L::%s[])', value, plain, compared_type) END
      FROM (SELECT CASE kind WHEN 'other' THEN operands
                        ELSE ARRAY(SELECT o::jsonb #>> '{}' FROM unnest(operands) WITH ORDINALITY u (o, number)
                                    ORDER BY number) END,
                   CASE kind WHEN 'other' THEN 'pg_catalog.text' ELSE type_name END) p (plain, compared_type)
$$;
REVOKE ALL ON FUNCTION brain.comparison_condition FROM PUBLIC;

-- What identifies the columns of each channel and their types, labels of enums included: if it is another than before,
-- the filters of clients have to be bound again.
CREATE OR REPLACE FUNCTION brain.filter_types(OUT channel text, OUT types bigint) RETURNS SETOF record
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.channel, hashtextextended(string_agg(concat_ws(' ', a.attname, a.atttypid, a.atttypmod, a.attcollation,
               ARRAY(SELECT e.enumlabel FROM pg_enum e WHERE e.enumtypid = brain.base_type(a.atttypid)
                      ORDER BY e.enumsortorder)), ',' ORDER BY a.attnum), 0)
      FROM brain.watched w
      LEFT JOIN pg_attribute a ON a.attrelid = w.relation AND a.attname = ANY (w.columns) AND a.attnum > 0
                               AND NOT a.attisdropped
     GROUP BY w.channel
$$;
REVOKE ALL ON FUNCTION brain.filter_types FROM PUBLIC;

-- The condition for the rows `r` of a watched table that match a filter, for a query that brain_reader runs. An
-- exception says what is wrong with the filter.
CREATE OR REPLACE FUNCTION brain.filter_condition(watched brain.watched, filter jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parts text[] := '{}';
    member record;
    compared record;
BEGIN
    IF jsonb_typeof(filter) IS DISTINCT FROM 'object' THEN
        RAISE EXCEPTION 'a filter is a JSON object of columns and values, not %', left(filter::text, 100)
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR member IN SELECT m.key, m.value FROM jsonb_each(filter) m ORDER BY m.key LOOP
        IF member.key IN ('and', 'or') AND jsonb_typeof(member.value) = 'array' THEN
            parts := parts || (SELECT coalesce('(' || string_agg(brain.filter_condition(watched, p.part),
                                                                 format(' %s ', upper(member.key))
                                                                 ORDER BY p.number) || ')',
                                               CASE member.key WHEN 'and' THEN 'true' ELSE 'false' END)
                                 FROM jsonb_array_elements(member.value) WITH ORDINALITY p (part, number));
        ELSE
            FOR compared IN
                SELECT c.problem, c.condition
                  FROM jsonb_each(CASE jsonb_typeof(member.value) WHEN 'object' THEN member.value
                                  ELSE jsonb_build_object('eq', member.value) END) o,
                       brain.filter_comparison(watched, member.key, o.key, o.value) c
            LOOP
                IF compared.problem IS NOT NULL THEN
                    RAISE EXCEPTION '%', compared.problem USING ERRCODE = 'invalid_parameter_value';
                END IF;
                parts := parts || compared.condition;
            END LOOP;
        END IF;
    END LOOP;
    RETURN coalesce('(' || nullif(array_to_string(parts, ' AND '), '') || ')', 'true');
END $$;
REVOKE ALL ON FUNCTION brain.filter_condition FROM PUBLIC;
