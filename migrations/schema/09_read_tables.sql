-- What others can define runs with the rights of brain_reader and no more. To plan and run a query of a table is to
-- run what its owner, or the owner of a type or a function, has defined: policies, casts, operators, views, and the
-- functions of indexes, which the planner evaluates. So no query of a user's table runs with the rights of Brain.
--
-- brain_reader may read the listed columns of watched tables, and the tables of feeds; it has no other right, owns
-- nothing, and cannot log in. SET ROLE would not do: a function that runs after it can RESET ROLE. In a function that
-- is SECURITY DEFINER it cannot. That function would have to belong to brain_reader in a dump too, which asks for a
-- schema of its own: so each session that reads tables creates it for itself. docs/design.md weighs the alternatives.

RESET ROLE;

DO $$
BEGIN
    IF NOT has_database_privilege('brain_reader', current_database(), 'TEMPORARY')
       AND has_database_privilege(current_database(), 'TEMPORARY WITH GRANT OPTION') THEN
        EXECUTE format('GRANT TEMPORARY ON DATABASE %I TO brain_reader', current_database());
    END IF;
END $$;

SET LOCAL ROLE brain_owner;

-- Creates pg_temp.brain_read in the session, unless it is there. Not to be called in the transaction that reads: that
-- one is rolled back.
--
-- brain_read returns the results of a query of one text column, run as brain_reader: up to and with the row that makes
-- them more than so many bytes. $1 of the query is `argument`. The transaction is read only from then on, which cannot
-- be undone: so what runs there cannot change brain_read, which belongs to brain_reader. The caller has to roll back:
-- what else a query may leave behind (settings, cursors that are kept beyond the transaction) ends with that.
--
-- What a query raises is raised again as 300 characters, and with an SQLSTATE that a query of a table can have: none by
-- which the server would be lost, full or shutting down. The code can change the search path; so all that stands after
-- it in the same block is qualified.
CREATE OR REPLACE FUNCTION brain.open_reader() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $open$
DECLARE
    former CONSTANT text := current_setting('role');
BEGIN
    IF EXISTS (SELECT FROM pg_proc p WHERE p.oid = to_regprocedure('pg_temp.brain_read(text, text, bigint)')
                  AND p.proowner = 'brain_reader'::regrole) THEN
        RETURN;
    ELSIF NOT has_database_privilege('brain_reader', current_database(), 'TEMPORARY') THEN
        RAISE EXCEPTION 'brain_reader may not read tables: GRANT TEMPORARY ON DATABASE % TO brain_reader',
              quote_ident(current_database()) USING ERRCODE = 'insufficient_privilege';
    END IF;
    PERFORM set_config('role', 'brain_reader', true);
    CREATE FUNCTION pg_temp.brain_read(query text, argument text DEFAULT NULL, most_bytes bigint DEFAULT NULL)
    RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER
    SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET bytea_output = hex
    SET datestyle = 'ISO, MDY' SET intervalstyle = postgres SET timezone = 'UTC' SET lc_monetary = 'C'
    SET quote_all_identifiers = off SET client_min_messages = error AS $read$
    DECLARE
        value text;
        bytes bigint := 0;
    BEGIN
        PERFORM set_config('transaction_read_only', 'on', true);
        BEGIN
            FOR value IN EXECUTE query USING argument LOOP
                RETURN NEXT value;
                bytes := bytes OPERATOR(pg_catalog.+) coalesce(pg_catalog.octet_length(value), 0);
                EXIT WHEN bytes OPERATOR(pg_catalog.>) most_bytes;
            END LOOP;
        EXCEPTION WHEN OTHERS OR query_canceled OR assert_failure THEN
            RAISE EXCEPTION USING MESSAGE = left(SQLERRM, 300), ERRCODE =
                CASE WHEN left(SQLSTATE, 2) IN ('0A', '20', '21', '22', '23', '24', '2F', '34', '38', '39', '40', '42',
                                                '44', '54', 'HV', 'P0', 'XX')
                          OR SQLSTATE IN ('25006', '53000', '53100', '53200', '53400', '55000', '55P03', '57014',
                                          '58030', '58P01')
                     THEN SQLSTATE ELSE 'P0001' END;
        END;
    END $read$;
    REVOKE ALL ON FUNCTION pg_temp.brain_read FROM PUBLIC;
    GRANT EXECUTE ON FUNCTION pg_temp.brain_read TO SESSION_USER;
    PERFORM set_config('role', former, true);
END $open$;
REVOKE ALL ON FUNCTION brain.open_reader FROM PUBLIC;

-- What brain_reader may read, and for which watch, feed or table of a system.
CREATE TABLE IF NOT EXISTS brain.reader_grants (
    purpose  text     NOT NULL,  -- watch 17, feed open-orders, system public.tasks
    relation regclass NOT NULL,
    columns  text[],             -- null: all
    PRIMARY KEY (purpose, relation)
);

-- Lets brain_reader read relations for a purpose, and nothing else for that one: these columns of each, or all if
-- null. What the caller may not grant is left out: brain.limits and the errors of reading say so. What nothing needs
-- any more is revoked, and what the caller may not revoke is a warning.
CREATE OR REPLACE FUNCTION brain.let_read(purpose text, relations oid[], columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former CONSTANT oid[] := ARRAY(SELECT g.relation::oid FROM brain.reader_grants g
                                     JOIN pg_class c ON c.oid = g.relation WHERE g.purpose = let_read.purpose);
    command text;
BEGIN
    DELETE FROM brain.reader_grants g
     WHERE g.purpose = let_read.purpose OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation);
    INSERT INTO brain.reader_grants SELECT DISTINCT let_read.purpose, r, let_read.columns FROM unnest(relations) r;
    FOR command IN
        SELECT format('REVOKE SELECT ON %s FROM brain_reader', c.oid::regclass)
          FROM pg_class c WHERE c.oid = ANY (former) AND has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')
         UNION ALL
        SELECT format('DROP POLICY "!brain_reader" ON %s', p.polrelid::regclass)
          FROM pg_policy p
         WHERE p.polrelid = ANY (former) AND p.polname = '!brain_reader' AND brain.is_owner(p.polrelid)
           AND NOT EXISTS (SELECT FROM brain.reader_grants g WHERE g.relation = p.polrelid)
         UNION ALL
        SELECT format('REVOKE USAGE ON SCHEMA %s FROM brain_reader', n.oid::regnamespace)
          FROM pg_namespace n
         WHERE n.oid IN (SELECT c.relnamespace FROM pg_class c WHERE c.oid = ANY (former))
           AND NOT EXISTS (SELECT FROM brain.reader_grants g JOIN pg_class c ON c.oid = g.relation
                            WHERE c.relnamespace = n.oid)
           AND EXISTS (SELECT FROM aclexplode(n.nspacl) a WHERE a.grantee = 'brain_reader'::regrole)
           AND has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION')
         UNION ALL
        SELECT format('GRANT USAGE ON SCHEMA %s TO brain_reader', n)
          FROM (SELECT DISTINCT c.relnamespace::regnamespace FROM pg_class c WHERE c.oid = ANY (relations)) s (n)
         WHERE NOT has_schema_privilege('brain_reader', n, 'USAGE')
           AND has_schema_privilege(n, 'USAGE WITH GRANT OPTION')
         UNION ALL
        SELECT format('GRANT SELECT %s ON %s TO brain_reader', '(' || c.list || ')', g.relation)
          FROM brain.reader_grants g
          LEFT JOIN LATERAL (
               SELECT string_agg(quote_ident(a.attname), ', ') FROM pg_attribute a
                WHERE a.attrelid = g.relation AND a.attname = ANY (g.columns) AND NOT a.attisdropped
                  AND has_column_privilege(a.attrelid, a.attnum, 'SELECT WITH GRANT OPTION')) c (list) ON true
         WHERE g.relation::oid = ANY (former || relations)
           AND (c.list IS NOT NULL
                OR (g.columns IS NULL AND has_table_privilege(g.relation, 'SELECT WITH GRANT OPTION')))
    LOOP
        EXECUTE command;
    END LOOP;
    FOR command IN
        SELECT concat_ws('; ', CASE WHEN has_any_column_privilege('brain_reader', c.oid, 'SELECT')
                                    THEN format('REVOKE SELECT ON %s FROM brain_reader', c.oid::regclass) END,
                         (SELECT format('DROP POLICY "!brain_reader" ON %s', c.oid::regclass) FROM pg_policy p
                           WHERE p.polrelid = c.oid AND p.polname = '!brain_reader'))
          FROM pg_class c
         WHERE c.oid = ANY (former) AND NOT EXISTS (SELECT FROM brain.reader_grants g WHERE g.relation = c.oid)
    LOOP
        IF command <> '' THEN
            RAISE WARNING 'brain_reader is allowed more than it needs by now; the owner of the table can end that: %',
                  command;
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.let_read FROM PUBLIC;

-- Whether a policy shows every row of a table to brain_reader, whatever other permissive policies there are: its
-- expression is the constant true. It is compared as it is stored: pg_get_expr locks the table, and waits for others.
CREATE OR REPLACE FUNCTION brain.has_reader_policy(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_policy p
                    WHERE p.polrelid = relation AND p.polpermissive AND p.polcmd IN ('r', '*')
                      AND 'brain_reader'::regrole = ANY (p.polroles)
                      AND p.polqual::text ~ ('^{CONST :consttype 16 :consttypmod -1 :constcollid 0 :constlen 1 '
                                             ':constbyval true :constisnull false :location -?[0-9]+ '
                                             ':constvalue 1 [[] (0 )*1 (0 )*[]]}$'))
$$;
REVOKE ALL ON FUNCTION brain.has_reader_policy FROM PUBLIC;

-- The commands that let brain_reader read columns of a relation, all if null; null if it can.
CREATE OR REPLACE FUNCTION brain.reader_commands(relation oid, columns text[]) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT nullif(concat_ws('; ',
        CASE WHEN NOT has_schema_privilege('brain_reader', c.relnamespace, 'USAGE')
             THEN format('GRANT USAGE ON SCHEMA %s TO brain_reader', c.relnamespace::regnamespace) END,
        CASE WHEN columns IS NULL AND NOT has_table_privilege('brain_reader', c.oid, 'SELECT')
             THEN format('GRANT SELECT ON %s TO brain_reader', c.oid::regclass) END,
        (SELECT format('GRANT SELECT (%s) ON %s TO brain_reader',
                       string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum), c.oid::regclass)
           FROM pg_attribute a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (columns)
            AND NOT has_column_privilege('brain_reader', a.attrelid, a.attnum, 'SELECT')
         HAVING count(*) > 0),
        CASE WHEN c.relrowsecurity AND NOT brain.has_reader_policy(c.oid)
             THEN format('CREATE POLICY "!brain_reader" ON %s FOR SELECT TO brain_reader USING (true)',
                         c.oid::regclass) END), '')
      FROM pg_class c WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION brain.reader_commands FROM PUBLIC;

-- Why brain_reader cannot read all rows of a watched table, with the way out; null if it can.
CREATE OR REPLACE FUNCTION brain.reader_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format(CASE WHEN commands LIKE 'CREATE POLICY %%'
                       THEN 'row-level security of %1$s hides rows from brain_reader'
                       ELSE 'brain_reader may not read %1$s' END
                  || ', so Brain sends no snapshots of the channel %2$s: %3$s',
                  watched.relation, watched.channel, commands)
      FROM brain.reader_commands(watched.relation, brain.read_columns(watched)) commands WHERE commands IS NOT NULL
$$;
REVOKE ALL ON FUNCTION brain.reader_problem FROM PUBLIC;

-- Lets brain_reader read the columns of a watch, and all rows, where the caller may allow that.
CREATE OR REPLACE FUNCTION brain.let_read_watched(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM brain.let_read('watch ' || watched.id, ARRAY[watched.relation::oid], brain.read_columns(watched));
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = watched.relation AND c.relrowsecurity)
       AND brain.is_owner(watched.relation) AND NOT brain.has_reader_policy(watched.relation) THEN
        EXECUTE format('DROP POLICY IF EXISTS "!brain_reader" ON %1$s; CREATE POLICY "!brain_reader" ON %1$s '
                       'FOR SELECT TO brain_reader USING (true)', watched.relation);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.let_read_watched FROM PUBLIC;

-- The table in a FROM clause: a partitioned table with its partitions, any other table alone, because its
-- triggers do not see what is written to tables that inherit from it.
CREATE OR REPLACE FUNCTION brain.table_expression(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || relation::text
      FROM pg_class c WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION brain.table_expression FROM PUBLIC;

-- The query for the watched columns of every row `r`, as JSON text, to be followed by a condition; values that are
-- omitted from events are omitted here too. A value that cannot be shown fails it, unless it is `careful`, which takes
-- longer. `place` is an expression of the row for a second column.
CREATE OR REPLACE FUNCTION brain.rows_query(watched brain.watched, careful boolean, place text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($select$
        SELECT CASE WHEN octet_length(complete.data) <= %s THEN complete.data
                    ELSE brain.object_of(%L, %L, (brain.leave_out_largest(ARRAY[%s], NULL, %s, %s)).new_parts) END%s
          FROM %s r, LATERAL (SELECT CASE WHEN (%s) IS NOT TRUE THEN %s END AS data OFFSET 0) complete
         WHERE $select$,
        least(watched.column_bytes, watched.row_bytes), array_agg(name ORDER BY number),
        array_agg(is_listed ORDER BY number), string_agg(format(
            'CASE WHEN %s THEN NULL ELSE %s END', coalesce(size || ' > ' || watched.column_bytes, 'false'),
            format(CASE WHEN careful THEN 'brain.careful_text(%s, %s)'
                        ELSE 'brain.text_within(to_json(%s)::text, %s)' END,
                   CASE WHEN careful THEN value ELSE shown END,
                   CASE WHEN size LIKE 'octet_length%' THEN 'NULL' ELSE watched.column_bytes::text END)),
            ', ' ORDER BY number),
        cardinality(watched.key_columns), watched.row_bytes, ', ' || place, brain.table_expression(watched.relation),
        CASE WHEN careful THEN 'true'
             ELSE coalesce('greatest(' || string_agg(size, ', ' ORDER BY number) || ') > ' || watched.column_bytes,
                           'false') END,
        brain.object_expression(array_agg(name ORDER BY number) FILTER (WHERE is_listed),
                                array_agg(shown ORDER BY number) FILTER (WHERE is_listed)))
      FROM brain.column_expressions(watched, 'r')
$$;
REVOKE ALL ON FUNCTION brain.rows_query FROM PUBLIC;

-- That query for the rows that `allowed`, as brain.row_access returns it, shows of a table with row rules: none if it
-- is null, or of former rules. Further conditions may follow.
CREATE OR REPLACE FUNCTION brain.select_statement(watched brain.watched, careful boolean DEFAULT false,
                                                  allowed jsonb DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.rows_query(watched, careful) || brain.rows_condition(watched, allowed)
$$;
REVOKE ALL ON FUNCTION brain.select_statement FROM PUBLIC;

-- What that query calls.
GRANT USAGE ON SCHEMA brain TO brain_reader;
GRANT EXECUTE ON FUNCTION brain.text_within, brain.careful_text, brain.object_of, brain.leave_out_largest,
    brain.repaired, brain.json_of, brain.json_expression, brain.fields_of, brain.is_trusted, brain.base_type,
    brain.is_too_large, brain.relation_of_fields, brain.element_of TO brain_reader;
