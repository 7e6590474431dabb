-- Pages of a table in the order of its primary key, each read by itself: the next one begins after the last row of the
-- one before. brain/database/page_statement.py makes their queries of these parts.

SET LOCAL ROLE brain_owner;

-- How the columns of a primary key are ordered: their types below domains, and the operators of the operator class that
-- ORDER BY uses, too; null if there is none.
CREATE OR REPLACE FUNCTION brain.key_order(watched brain.watched)
RETURNS TABLE (number bigint, name text, type text, collation_id oid, equal text, greater text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT k.number, quote_ident(k.name), format('%I.%I', n.nspname, t.typname), a.attcollation,
           (SELECT format('OPERATOR(%I.%s)', s.nspname, p.oprname)
              FROM pg_amop m JOIN pg_operator p ON p.oid = m.amopopr JOIN pg_namespace s ON s.oid = p.oprnamespace
             WHERE m.amopfamily = c.opcfamily AND m.amopstrategy = 3
               AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype),
           (SELECT format('OPERATOR(%I.%s)', s.nspname, p.oprname)
              FROM pg_amop m JOIN pg_operator p ON p.oid = m.amopopr JOIN pg_namespace s ON s.oid = p.oprnamespace
             WHERE m.amopfamily = c.opcfamily AND m.amopstrategy = 5
               AND m.amoplefttype = c.opcintype AND m.amoprighttype = c.opcintype)
      FROM unnest(watched.key_columns) WITH ORDINALITY k (name, number)
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = k.name
                              AND a.attnum > 0 AND NOT a.attisdropped
      LEFT JOIN pg_type t ON t.oid = brain.base_type(a.atttypid)
      LEFT JOIN pg_namespace n ON n.oid = t.typnamespace
      LEFT JOIN LATERAL (
           SELECT o.opcfamily, o.opcintype FROM pg_opclass o JOIN pg_type i ON i.oid = o.opcintype
            WHERE o.opcmethod = (SELECT m.oid FROM pg_am m WHERE m.amname = 'btree') AND o.opcdefault
              AND (o.opcintype = t.oid
                   OR o.opcintype = CASE WHEN t.typcategory = 'A' THEN 'anyarray'::regtype
                                         ELSE CASE t.typtype WHEN 'e' THEN 'anyenum'::regtype
                                                             WHEN 'r' THEN 'anyrange'::regtype
                                                             WHEN 'm' THEN 'anymultirange'::regtype
                                                             WHEN 'c' THEN 'record'::regtype END END
                   OR EXISTS (SELECT FROM pg_cast b WHERE b.castsource = t.oid AND b.casttarget = o.opcintype
                                                      AND b.castmethod = 'b' AND b.castcontext = 'i'))
            ORDER BY o.opcintype = t.oid DESC, i.typispreferred DESC LIMIT 1) c ON true
$$;
REVOKE ALL ON FUNCTION brain.key_order FROM PUBLIC;

-- Why the rows of a watched table cannot be read page by page; null if they can.
CREATE OR REPLACE FUNCTION brain.page_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN NOT watched.key_columns <@ watched.columns
            THEN 'not all columns of its primary key are watched'
        WHEN watched.key_columns IS DISTINCT FROM brain.primary_key(watched.relation)
            THEN 'it has another primary key than when it was watched'
        WHEN EXISTS (SELECT FROM brain.key_order(watched) k WHERE k.greater IS NULL)
            THEN 'the values of its primary key have no order'
        ELSE (SELECT format('brain_reader may not use the types of its primary key: GRANT USAGE ON SCHEMA %s TO '
                            'brain_reader', min(t.typnamespace::regnamespace::text))
                FROM pg_attribute a JOIN pg_type t ON t.oid = brain.base_type(a.atttypid)
               WHERE a.attrelid = watched.relation AND a.attname = ANY (watched.key_columns)
                 AND NOT has_schema_privilege('brain_reader', t.typnamespace, 'USAGE')
              HAVING count(*) > 0)
        END
$$;
REVOKE ALL ON FUNCTION brain.page_problem FROM PUBLIC;

-- The condition that the row `r` has a key, which is the name of a row in subscriptions (`key_text` in
-- brain/message/json_text.py). What is no value of a column is the key of no row. A column whose values cannot be
-- compared exactly is left out: then other rows match, too.
CREATE OR REPLACE FUNCTION brain.key_condition(watched brain.watched, key text) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN count(k.name) <> count(k.value) THEN 'false'
                ELSE string_agg(coalesce(c.condition, CASE WHEN c.kind IS NULL THEN 'true' ELSE 'false' END), ' AND ')
           END
      FROM ROWS FROM (unnest(watched.key_columns),
                      unnest(CASE cardinality(watched.key_columns) WHEN 1 THEN ARRAY[key]
                             ELSE ARRAY(SELECT replace(replace(p.part, '%3A', ':'), '%25', '%')
                                          FROM unnest(string_to_array(key, ':')) WITH ORDINALITY p (part, number)
                                         ORDER BY p.number) END)) k (name, value)
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = k.name AND NOT a.attisdropped
      LEFT JOIN LATERAL brain.filter_comparison(
          watched, k.name, 'eq',
          CASE WHEN brain.base_type(a.atttypid) = 'boolean'::regtype AND k.value IN ('true', 'false')
               THEN k.value::jsonb ELSE to_jsonb(k.value) END) c ON k.name IS NOT NULL AND k.value IS NOT NULL
$$;
REVOKE ALL ON FUNCTION brain.key_condition FROM PUBLIC;

-- The place of a row in that order: the text of each value in hexadecimal, since it may have characters that no client
-- can be sent.
CREATE OR REPLACE FUNCTION brain.place_expression(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format('encode(convert_to(concat(r.%I), getdatabaseencoding()), ''hex'')', k.name),
                      ' || ''.'' || ' ORDER BY k.number)
      FROM unnest(watched.key_columns) WITH ORDINALITY k (name, number)
$$;
REVOKE ALL ON FUNCTION brain.place_expression FROM PUBLIC;

-- A text of a place. Unlike that of convert_from, its collation gives way to that of a column.
CREATE OR REPLACE FUNCTION brain.text_in_place(value bytea) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT convert_from(value, getdatabaseencoding())
$$;
REVOKE ALL ON FUNCTION brain.text_in_place FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.text_in_place TO brain_reader;

-- Changes with everything that queries of a watched table are made of: the watch, its rules, and the names and types of
-- the table and its columns.
CREATE OR REPLACE FUNCTION brain.table_version(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT concat_ws(' ', md5(watched::text), c.xmin, n.xmin,
                     (SELECT md5(string_agg(concat_ws(' ', a.attnum, a.xmin, t.xmin, s.xmin), ',' ORDER BY a.attnum))
                        FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
                        JOIN pg_namespace s ON s.oid = t.typnamespace
                       WHERE a.attrelid = c.oid AND a.attname = ANY (brain.read_columns(watched))))
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = watched.relation
$$;
REVOKE ALL ON FUNCTION brain.table_version FROM PUBLIC;
