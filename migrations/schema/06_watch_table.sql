-- brain.watch streams the changes of a table; brain.unwatch stops that. Rows are read through the watch too.

SET LOCAL ROLE brain_owner;

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

-- True if the table, or one of its partitions, has AFTER ROW triggers of the application. A trigger that
-- writes rows of the same table makes Brain's trigger see the changes in another order than they were made.
CREATE OR REPLACE FUNCTION brain.has_row_triggers(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_trigger t
                    WHERE t.tgrelid IN (SELECT relation UNION ALL SELECT relid FROM pg_partition_tree(relation))
                      AND NOT t.tgisinternal AND t.tgname NOT LIKE '!brain%'
                      AND t.tgtype & 1 = 1 AND t.tgtype & 66 = 0)
$$;
REVOKE ALL ON FUNCTION brain.has_row_triggers FROM PUBLIC;

-- True if the triggers of a watch exist and are enabled, on every partition too. Their names have the
-- watch's number, so that a watched table can be attached to a watched partitioned table.
CREATE OR REPLACE FUNCTION brain.has_triggers(watch integer, relation regclass, enabled "char") RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT count(*) FILTER (WHERE t.tgname = '!brain_1_row_' || watch) = count(DISTINCT r.id)
       AND count(*) FILTER (WHERE t.tgname = '!brain_2_truncate_' || watch AND r.id = relation) = 1
      FROM (SELECT relation::oid UNION SELECT relid FROM pg_partition_tree(relation)) r (id)
      LEFT JOIN pg_trigger t ON t.tgrelid = r.id AND t.tgenabled = enabled
$$;
REVOKE ALL ON FUNCTION brain.has_triggers FROM PUBLIC;

CREATE OR REPLACE FUNCTION brain.drop_triggers(watch integer, relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    name text;
BEGIN
    FOR name IN SELECT t.tgname FROM pg_trigger t
                 WHERE t.tgrelid = relation AND t.tgparentid = 0
                   AND t.tgname IN ('!brain_1_row_' || watch, '!brain_2_truncate_' || watch) LOOP
        EXECUTE format('DROP TRIGGER %I ON %s', name, relation);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.drop_triggers FROM PUBLIC;

-- Removes the watches of tables that were dropped.
CREATE OR REPLACE FUNCTION brain.unwatch_dropped() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
BEGIN
    FOR watch IN DELETE FROM brain.watched w
                  WHERE NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation) RETURNING w.id LOOP
        EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.unwatch_dropped FROM PUBLIC;

-- Streams every change of a table to a channel, with the listed columns and no others.
--
-- types: the types of its messages, {"insert": "order_placed", "update": ..., "delete": ..., "truncate": ...};
--     the wire format derives those that are left out.
-- timing: 'immediate' or 'deferred' to the end of the transaction. The default is deferred where the
--     table has AFTER ROW triggers of its own. The price of deferring: ALTER TABLE and TRUNCATE after a
--     change in the same transaction need SET CONSTRAINTS ALL IMMEDIATE before them.
-- replicated: true to stream what logical replication applies here; triggers do not fire for that
--     otherwise.
-- column_bytes: a larger value is not logged; the event names its column in `omitted`.
-- row_bytes: of the values of an event together, the former ones too; above it the largest are omitted.
--
-- To be called again when any of that changes. It locks the table for a moment, and needs the table's
-- TRIGGER privilege and membership in brain_owner. The names of the triggers sort before letters: if they
-- fired after a trigger of the application that writes the row again, the older image would be logged
-- last.
CREATE OR REPLACE FUNCTION brain.watch(relation regclass, channel text, columns text[], types jsonb DEFAULT '{}',
                            timing text DEFAULT NULL, replicated boolean DEFAULT false,
                            column_bytes integer DEFAULT 262144, row_bytes integer DEFAULT 1048576)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    keys CONSTANT text[] := brain.primary_key(relation);
    unknown CONSTANT text := brain.missing_columns(relation, columns);
    invalid_types CONSTANT text := (
        SELECT string_agg(name, ', ') FROM jsonb_each(types) t (name, value)
         WHERE name NOT IN ('insert', 'update', 'delete', 'truncate')
            OR jsonb_typeof(value) <> 'string' OR value = '""');
    is_deferred CONSTANT boolean := coalesce(timing = 'deferred', brain.has_row_triggers(relation));
    channel_owner CONSTANT regclass := (
        SELECT w.relation FROM brain.watched w
         WHERE w.channel = watch.channel AND w.relation <> watch.relation
           AND EXISTS (SELECT FROM pg_class c WHERE c.oid = w.relation));
    virtual_columns CONSTANT text := (
        SELECT string_agg(a.attname, ', ') FROM pg_attribute a
         WHERE a.attrelid = relation AND a.attname = ANY (columns) AND a.attgenerated = 'v');
    kind "char";
    watched brain.watched;
    trigger_name text;
BEGIN
    SELECT c.relkind INTO kind FROM pg_class c
     WHERE c.oid = relation AND c.relpersistence <> 't' AND c.relnamespace <> 'brain'::regnamespace;
    IF kind IS NULL OR kind NOT IN ('r', 'p') THEN
        RAISE EXCEPTION '% cannot be watched: it is a view, a foreign or temporary table, or one of Brain''s own',
              relation;
    ELSIF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key', relation;
    ELSIF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', relation, unknown;
    ELSIF virtual_columns IS NOT NULL THEN
        RAISE EXCEPTION 'triggers do not see the virtual column % of %', virtual_columns, relation;
    ELSIF coalesce(cardinality(columns), 0) = 0 THEN
        RAISE EXCEPTION 'no column of % is listed', relation;
    ELSIF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'the channel for % has no name', relation;
    ELSIF starts_with(channel, 'brain.') THEN
        RAISE EXCEPTION 'the channel % is Brain''s own', channel;
    ELSIF channel_owner IS NOT NULL THEN
        RAISE EXCEPTION 'the channel % is that of table %', channel, channel_owner;
    ELSIF invalid_types IS NOT NULL THEN
        RAISE EXCEPTION 'types names messages for insert, update, delete and truncate; not %', invalid_types;
    ELSIF timing NOT IN ('immediate', 'deferred') THEN
        RAISE EXCEPTION 'timing is immediate or deferred, not %', timing;
    ELSIF column_bytes IS NULL OR column_bytes NOT BETWEEN 8192 AND 16777216 THEN
        RAISE EXCEPTION 'column_bytes is a number from 8192 to 16777216, not %', column_bytes;
    ELSIF row_bytes IS NULL OR row_bytes NOT BETWEEN 8192 AND 16777216 THEN
        RAISE EXCEPTION 'row_bytes is a number from 8192 to 16777216, not %', row_bytes;
    END IF;
    PERFORM brain.unwatch_dropped();
    INSERT INTO brain.watched AS w (relation, channel, key_columns, columns, types, is_deferred, is_replicated,
                                    column_bytes, row_bytes, table_name)
    VALUES (relation, channel, keys, columns, types, is_deferred, replicated, column_bytes, row_bytes,
            relation::text)
    ON CONFLICT ON CONSTRAINT watched_relation_key DO UPDATE
       SET channel = excluded.channel, key_columns = excluded.key_columns, columns = excluded.columns,
           types = excluded.types, is_deferred = excluded.is_deferred, is_replicated = excluded.is_replicated,
           column_bytes = excluded.column_bytes, row_bytes = excluded.row_bytes, table_name = excluded.table_name
    RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched), brain.drop_triggers(watched.id, relation);
    EXECUTE format($triggers$
CREATE %3$s TRIGGER "!brain_1_row_%5$s" AFTER INSERT OR UPDATE OR DELETE ON %1$s %4$s
    FOR EACH ROW EXECUTE FUNCTION %2$s;
CREATE TRIGGER "!brain_2_truncate_%5$s" AFTER TRUNCATE ON %1$s
    FOR EACH STATEMENT EXECUTE FUNCTION %2$s;$triggers$,
        relation, format('brain.%I()', 'capture_' || watched.id),
        CASE WHEN is_deferred THEN 'CONSTRAINT' END,
        CASE WHEN is_deferred THEN 'DEFERRABLE INITIALLY DEFERRED' END, watched.id);
    IF replicated THEN
        FOR trigger_name IN SELECT t.tgname FROM pg_trigger t
                             WHERE t.tgrelid = relation AND t.tgname LIKE '!brain%\_' || watched.id LOOP
            EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', relation, trigger_name);
        END LOOP;
    END IF;
END $watch$;
REVOKE ALL ON FUNCTION brain.watch FROM PUBLIC;

-- Stops watching a table. Events that are in the log already are still sent.
CREATE OR REPLACE FUNCTION brain.unwatch(relation regclass) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watch integer;
BEGIN
    DELETE FROM brain.watched w WHERE w.relation = unwatch.relation RETURNING w.id INTO watch;
    IF watch IS NULL THEN
        RAISE EXCEPTION 'table % is not watched', relation;
    END IF;
    PERFORM brain.drop_triggers(watch, relation), brain.unwatch_dropped();
    EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
END $$;
REVOKE ALL ON FUNCTION brain.unwatch FROM PUBLIC;

-- The watched tables, with the problems of each.
CREATE OR REPLACE VIEW brain.watches AS
SELECT w.relation, w.channel, w.key_columns, w.columns, w.types,
       CASE WHEN w.is_deferred THEN 'deferred' ELSE 'immediate' END AS timing,
       w.is_replicated AS replicated,
       array_remove(ARRAY[
           CASE WHEN c.oid IS NULL THEN 'the table was dropped' END,
           CASE WHEN c.oid IS NOT NULL THEN 'no column ' || brain.missing_columns(c.oid, w.columns) END,
           CASE WHEN brain.primary_key(c.oid) IS DISTINCT FROM w.key_columns AND c.oid IS NOT NULL
                THEN 'the primary key has changed' END,
           CASE WHEN c.oid IS NOT NULL
                 AND NOT brain.has_triggers(w.id, c.oid, CASE WHEN w.is_replicated THEN 'A' ELSE 'O' END::"char")
                THEN 'a trigger is missing or disabled' END,
           CASE WHEN NOT w.is_deferred AND brain.has_row_triggers(c.oid)
                THEN 'it has AFTER ROW triggers by now, which may write rows again' END], NULL) AS problems
  FROM brain.watched w LEFT JOIN pg_class c ON c.oid = w.relation;

-- The table in a FROM clause: a partitioned table with its partitions, any other table alone, because its
-- triggers do not see what is written to tables that inherit from it.
CREATE OR REPLACE FUNCTION brain.table_expression(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || relation::text
      FROM pg_class c WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION brain.table_expression FROM PUBLIC;

-- The query for the watched columns of every row, as JSON text; values that are omitted from events are
-- omitted here too.
CREATE OR REPLACE FUNCTION brain.select_statement(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($select$
        SELECT CASE WHEN octet_length(complete.data) <= %s THEN complete.data
                    ELSE brain.object_of(%L, %L, (brain.leave_out_largest(ARRAY[%s], NULL, %s, %s)).new_parts) END
          FROM %s r, LATERAL (SELECT CASE WHEN (%s) IS NOT TRUE THEN %s END AS data OFFSET 0) complete$select$,
        least(watched.column_bytes, watched.row_bytes), array_agg(name ORDER BY number),
        array_agg(is_listed ORDER BY number), string_agg(format(
            'CASE WHEN %s THEN NULL ELSE brain.text_within(to_json(%s)::text, %s) END', coalesce(is_large, 'false'),
            value, CASE WHEN is_large LIKE 'octet_length%' THEN 'NULL' ELSE watched.column_bytes::text END),
            ', ' ORDER BY number),
        cardinality(watched.key_columns), watched.row_bytes, brain.table_expression(watched.relation),
        coalesce(string_agg(is_large, ' OR ' ORDER BY number), 'false'),
        brain.object_expression(array_agg(name ORDER BY number) FILTER (WHERE is_listed),
                                array_agg(value ORDER BY number) FILTER (WHERE is_listed)))
      FROM brain.column_expressions(watched, 'r')
$$;
REVOKE ALL ON FUNCTION brain.select_statement FROM PUBLIC;

-- The JSON text of a value, null where it is longer than so many bytes.
CREATE OR REPLACE FUNCTION brain.text_within(value text, bytes integer) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN value IS NULL THEN 'null' WHEN bytes IS NULL OR octet_length(value) <= bytes THEN value END
$$;
REVOKE ALL ON FUNCTION brain.text_within FROM PUBLIC;

-- The watched columns of every row; no rows if no table is watched on the channel. It runs with the rights
-- of the caller.
CREATE OR REPLACE FUNCTION brain.rows(channel text) RETURNS SETOF text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET bytea_output = hex
SET datestyle = 'ISO, MDY' SET intervalstyle = postgres SET timezone = 'UTC' SET lc_monetary = 'C'
SET quote_all_identifiers = off AS $$
DECLARE
    watched brain.watched;
BEGIN
    SELECT w.* INTO watched FROM brain.watched w WHERE w.channel = rows.channel;
    IF FOUND THEN
        RETURN QUERY EXECUTE brain.select_statement(watched);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.rows FROM PUBLIC;
