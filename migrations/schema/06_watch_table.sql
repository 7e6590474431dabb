-- brain.watch streams the changes of a table; brain.unwatch stops that. Rows are read through the watch too.

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

-- The names of the AFTER ROW triggers that the application has on the table or on one of its partitions.
-- A trigger that writes rows of the same table makes Brain's trigger see the changes in another order than
-- they were made.
CREATE OR REPLACE FUNCTION brain.row_triggers(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(DISTINCT quote_ident(t.tgname), ', ')
      FROM pg_trigger t
     WHERE t.tgrelid IN (SELECT relation UNION ALL SELECT relid FROM pg_partition_tree(relation))
       AND NOT t.tgisinternal AND t.tgname NOT LIKE '!brain%'
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
                ELSE '''' || replace(word, '''', '''\''''') || '''' END
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
    SELECT EXISTS (SELECT FROM pg_class c WHERE c.relrowsecurity
                      AND c.oid IN (SELECT relation::oid UNION SELECT relid FROM pg_partition_tree(relation)))
$$;
REVOKE ALL ON FUNCTION brain.has_row_security FROM PUBLIC;

-- What brain_reader may read, and for which watch, feed or table of a system.
CREATE TABLE IF NOT EXISTS brain.reader_grants (
    purpose  text     NOT NULL,  -- watch 17, feed open-orders, system public.tasks
    relation regclass NOT NULL,
    columns  text[],             -- null: all
    PRIMARY KEY (purpose, relation)
);

-- Lets brain_reader read relations for a purpose, and nothing else for that one: these columns of each, or all if
-- null. What the caller may not grant is left out: brain.limits and the errors of reading say so.
CREATE OR REPLACE FUNCTION brain.let_read(purpose text, relations oid[], columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    former CONSTANT oid[] := ARRAY(SELECT g.relation::oid FROM brain.reader_grants g
                                    WHERE g.purpose = let_read.purpose);
    command text;
BEGIN
    DELETE FROM brain.reader_grants g
     WHERE g.purpose = let_read.purpose OR NOT EXISTS (SELECT FROM pg_class c WHERE c.oid = g.relation);
    INSERT INTO brain.reader_grants SELECT DISTINCT let_read.purpose, r, let_read.columns FROM unnest(relations) r;
    FOR command IN
        SELECT format('REVOKE SELECT ON %s FROM brain_reader', c.oid::regclass)
          FROM pg_class c WHERE c.oid = ANY (former) AND has_table_privilege(c.oid, 'SELECT WITH GRANT OPTION')
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
END $$;
REVOKE ALL ON FUNCTION brain.let_read FROM PUBLIC;

-- Whether a policy shows every row of a table to brain_reader, whatever other permissive policies there are.
CREATE OR REPLACE FUNCTION brain.has_reader_policy(relation regclass) RETURNS boolean LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (SELECT FROM pg_policy p
                    WHERE p.polrelid = relation AND p.polpermissive AND p.polcmd IN ('r', '*')
                      AND 'brain_reader'::regrole = ANY (p.polroles)
                      AND pg_get_expr(p.polqual, p.polrelid) = 'true')
$$;
REVOKE ALL ON FUNCTION brain.has_reader_policy FROM PUBLIC;

-- Why brain_reader cannot read all rows of a watched table, with the way out; null if it can.
CREATE OR REPLACE FUNCTION brain.reader_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(
        (SELECT format('brain_reader may not read %s, so Brain sends no snapshots of the channel %s: %s',
                       watched.relation, watched.channel, string_agg(grant_needed, '; '))
           FROM (SELECT format('GRANT USAGE ON SCHEMA %s TO brain_reader', c.relnamespace::regnamespace)
                            AS grant_needed
                   FROM pg_class c
                  WHERE c.oid = watched.relation
                    AND NOT has_schema_privilege('brain_reader', c.relnamespace, 'USAGE')
                  UNION ALL
                 SELECT format('GRANT SELECT ON %s TO brain_reader', watched.relation)
                  WHERE EXISTS (SELECT FROM pg_attribute a
                                 WHERE a.attrelid = watched.relation AND a.attnum > 0 AND NOT a.attisdropped
                                   AND a.attname = ANY (brain.read_columns(watched))
                                   AND NOT has_column_privilege('brain_reader', a.attrelid, a.attnum, 'SELECT')))
                grants
         HAVING count(*) > 0),
        (SELECT format('row-level security of %1$s hides rows from brain_reader, so Brain sends no snapshots of the '
                       'channel %2$s: CREATE POLICY "!brain_reader" ON %1$s FOR SELECT TO brain_reader USING (true)',
                       watched.relation, watched.channel)
           FROM pg_class c
          WHERE c.oid = watched.relation AND c.relrowsecurity AND NOT brain.has_reader_policy(watched.relation)))
$$;
REVOKE ALL ON FUNCTION brain.reader_problem FROM PUBLIC;

-- Lets brain_reader read the columns of a watch, and all rows, where the caller may allow that.
CREATE OR REPLACE FUNCTION brain.let_read_watched(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM brain.let_read('watch ' || watched.id, ARRAY[watched.relation::oid], brain.read_columns(watched));
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = watched.relation AND c.relrowsecurity
                  AND pg_has_role(c.relowner, 'USAGE'))
       AND NOT brain.has_reader_policy(watched.relation) THEN
        EXECUTE format('DROP POLICY IF EXISTS "!brain_reader" ON %1$s; CREATE POLICY "!brain_reader" ON %1$s '
                       'FOR SELECT TO brain_reader USING (true)', watched.relation);
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.let_read_watched FROM PUBLIC;

-- What else a writer may do that the channel of a watch does not show, or shows in another way, and what
-- keeps Brain from reading the table, each with the way out. A watch works all the same.
CREATE OR REPLACE FUNCTION brain.limits(watched brain.watched) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE relations (id) AS (
        SELECT watched.relation::oid UNION SELECT relid FROM pg_partition_tree(watched.relation)),
    listed AS (
        SELECT a.attname AS name, a.attnum AS number, a.atttypid AS type, a.atttypmod AS modifier,
               a.attname = ANY (watched.key_columns) AS is_key
          FROM pg_attribute a
         WHERE a.attrelid = watched.relation AND a.attnum > 0 AND NOT a.attisdropped
           AND a.attname = ANY (brain.read_columns(watched))),
    inner_types (name, type) AS (  -- those that a value of a column consists of
        SELECT name, type FROM listed
         UNION
        SELECT i.name, inner_type
          FROM inner_types i JOIN pg_type t ON t.oid = i.type
          LEFT JOIN pg_attribute a ON a.attrelid = t.typrelid AND t.typrelid <> 0 AND a.attnum > 0
                                  AND NOT a.attisdropped,
               unnest(ARRAY[nullif(t.typbasetype, 0), nullif(t.typelem, 0), a.atttypid]) inner_type
         WHERE inner_type IS NOT NULL)
    SELECT coalesce(array_agg(sentence ORDER BY place) FILTER (WHERE sentence IS NOT NULL), '{}')
      FROM unnest(ARRAY[
        (SELECT format('row-level security of %s does not apply to its events and snapshots: %s', watched.relation,
                       CASE WHEN watched.rules <> '{}' THEN 'its row rules decide who gets which rows'
                            ELSE format('each client that may read the channel %s gets all rows: let nobody else '
                                        'read it, or give row rules: brain restrict', watched.channel) END)
          WHERE brain.has_row_security(watched.relation)),
        brain.reader_problem(watched),
        (SELECT format('the AFTER ROW triggers of %s (%s) may write rows again, and with the timing immediate the '
                       'older row is logged last: this changes it: %s --timing deferred', watched.relation, names,
                       brain.watch_command(watched, watched.relation::text))
           FROM brain.row_triggers(watched.relation) names WHERE names IS NOT NULL AND NOT watched.is_deferred),
        (SELECT format('the triggers of %s do not fire in sessions with session_replication_role = replica, which '
                       'is a setting of %s: this changes it: %s --replicated', watched.relation,
                       string_agg(DISTINCT scope, ', '), brain.watch_command(watched, watched.relation::text))
           FROM (SELECT CASE WHEN s.setrole <> 0 THEN 'role ' || s.setrole::regrole
                             WHEN s.setdatabase <> 0 THEN 'this database'
                             ELSE 'all roles' END AS scope
                   FROM pg_db_role_setting s, unnest(s.setconfig) setting
                  WHERE s.setdatabase IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))
                    AND setting = 'session_replication_role=replica'
                  UNION ALL
                 SELECT 'this server' FROM pg_settings
                  WHERE name = 'session_replication_role' AND boot_val <> setting AND setting = 'replica'
                    AND source = 'configuration file') replica
          WHERE NOT watched.is_replicated HAVING count(*) > 0),
        (SELECT format('what a subscription to another server writes to %s is not seen: this changes it: %s '
                       '--replicated', watched.relation, brain.watch_command(watched, watched.relation::text))
          WHERE NOT watched.is_replicated
            AND EXISTS (SELECT FROM pg_subscription_rel s WHERE s.srrelid IN (SELECT id FROM relations))),
        (SELECT format('%s is unlogged: a crash of the server empties it without an event', watched.relation)
           FROM pg_class c WHERE c.oid IN (SELECT id FROM relations) AND c.relpersistence = 'u' LIMIT 1),
        (SELECT format('changes of the tables that inherit from %s (%s) are not seen: watch each on a channel of '
                       'its own', watched.relation, string_agg(i.inhrelid::regclass::text, ', '))
           FROM pg_inherits i JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'r'
          WHERE i.inhparent = watched.relation HAVING count(*) > 0),
        (SELECT format('partitions of %s are watched as well (%s), so their changes are sent twice: %s',
                       watched.relation, string_agg(format('%s on the channel %s', w.relation, w.channel), ', '),
                       string_agg('brain unwatch ' || brain.shell_word(w.relation::text), ' && '))
           FROM brain.watched w
          WHERE w.relation <> watched.relation AND w.relation IN (SELECT id FROM relations) HAVING count(*) > 0),
        (SELECT format('the key of %s may be larger than 8192 bytes of JSON (%s): clients get a reset of the '
                       'channel %s in place of the change of such a row', watched.relation,
                       string_agg(format('%s %s', quote_ident(name), format_type(type, modifier)), ', '
                                  ORDER BY number),
                       watched.channel)
           FROM (SELECT DISTINCT l.name, l.number, l.type, l.modifier
                   FROM listed l JOIN inner_types i USING (name) JOIN pg_type t ON t.oid = i.type
                  WHERE l.is_key
                    AND (t.typtype IN ('c', 'm') OR t.typcategory = 'A'
                         OR t.oid IN ('bytea'::regtype, 'json'::regtype, 'jsonb'::regtype, 'xml'::regtype,
                                      'tsvector'::regtype, 'varbit'::regtype)
                         OR (t.oid IN ('varchar'::regtype, 'bpchar'::regtype) AND l.modifier > 8192))) large
         HAVING count(*) > 0),
        (SELECT format('casts to json are not used for the columns of %s (%s): their values are sent as the text that '
                       'PostgreSQL prints', watched.relation,
                       string_agg(DISTINCT format('%s: %s', quote_ident(i.name), c.castfunc::regprocedure), ', '))
           FROM inner_types i JOIN pg_cast c ON c.castsource = i.type AND c.casttarget = 'json'::regtype
           JOIN pg_type t ON t.oid = i.type AND t.typtype <> 'c'
          WHERE NOT brain.is_trusted(i.type)
         HAVING count(*) > 0)
      ]) WITH ORDINALITY s (sentence, place)
$$;
REVOKE ALL ON FUNCTION brain.limits FROM PUBLIC;

-- What has become of a watched table's name.
CREATE OR REPLACE FUNCTION brain.name_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE
        WHEN c.oid IS NULL AND other.oid IS NULL
            THEN format('table %s was dropped: this ends the watch: SELECT brain.unwatch_dropped()',
                        watched.table_name)
        WHEN c.oid IS NULL AND w.id IS NULL
            THEN format('table %s was dropped, and what has its name by now is not watched: %s', watched.table_name,
                        brain.watch_command(watched, watched.table_name))
        WHEN c.oid IS NULL
            THEN format('table %s was dropped, and what has its name by now is watched on the channel %s: this ends '
                        'the watch: SELECT brain.unwatch_dropped()', watched.table_name, w.channel)
        WHEN other.oid <> c.oid AND w.id IS NULL
            THEN format('the name %1$s is another table''s by now, which is not watched; the watched one is called '
                        '%2$s: brain unwatch %3$s && %4$s', watched.table_name, watched.relation,
                        brain.shell_word(watched.relation::text),
                        brain.watch_command(watched, watched.table_name))
        WHEN other.oid <> c.oid
            THEN format('the name %s is by now that of a table that is watched on the channel %s; the one that is '
                        'watched on %s is called %s: to have it known by that name: %s', watched.table_name,
                        w.channel, watched.channel, watched.relation,
                        brain.watch_command(watched, watched.relation::text))
        WHEN c.relnamespace <> coalesce(to_regnamespace(quote_ident(
                 (parse_ident(watched.table_name))[array_length(parse_ident(watched.table_name), 1) - 1])), 0)
            THEN format('table %s was moved: it is %s by now, and watched as before: to have it known by that name: '
                        '%s', watched.table_name, watched.relation,
                        brain.watch_command(watched, watched.relation::text))
        END
      FROM (SELECT) one
      LEFT JOIN pg_class c ON c.oid = watched.relation
      LEFT JOIN pg_class other ON other.oid = (SELECT brain.relation_of(watched.table_name))
      LEFT JOIN brain.watched w ON w.relation = other.oid AND w.id <> watched.id
$$;
REVOKE ALL ON FUNCTION brain.name_problem FROM PUBLIC;

-- What has become of the listed columns, and of the primary key.
CREATE OR REPLACE FUNCTION brain.column_problems(watched brain.watched) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT array_remove(ARRAY[
        (SELECT format('%s has changed: %s: this watches it as it is: %s', watched.relation,
                       string_agg(what, ', ' ORDER BY number),
                       brain.watch_command(watched, watched.relation::text))
           FROM (SELECT c.number,
                        CASE WHEN present IS NULL THEN format('no column %s any more', quote_ident(name))
                             WHEN present <> name THEN format('column %s is called %s', quote_ident(name),
                                                              quote_ident(present))
                             ELSE (SELECT format('column %s is %s and was %s', quote_ident(name),
                                                 format_type(a.atttypid, NULL), watched.attributes -> name ->> 1)
                                     FROM pg_attribute a
                                    WHERE a.attrelid = watched.relation AND a.attname = name
                                      AND format_type(a.atttypid, NULL) <> watched.attributes -> name ->> 1)
                        END AS what
                   FROM (SELECT r.name, min(r.number) AS number
                           FROM unnest(brain.read_columns(watched)) WITH ORDINALITY r (name, number) GROUP BY 1) c,
                        brain.present_name(watched, name) present) columns
          WHERE what IS NOT NULL HAVING count(*) > 0),
        CASE WHEN keys IS NULL
                 THEN format('%s has no primary key any more, and its events have the former one (%s): add one, then: '
                             '%s', watched.relation, array_to_string(watched.key_columns, ', '),
                             brain.watch_command(watched, watched.relation::text))
             WHEN keys <> watched.key_columns
                 THEN format('the primary key of %s is (%s), and its events have the former one (%s): %s',
                             watched.relation, array_to_string(keys, ', '),
                             array_to_string(watched.key_columns, ', '),
                             brain.watch_command(watched, watched.relation::text)) END], NULL)
      FROM brain.primary_key(watched.relation) keys
$$;
REVOKE ALL ON FUNCTION brain.column_problems FROM PUBLIC;

-- The tables on which a trigger of a watch is missing or disabled: that is the table or some of its
-- partitions. The triggers' names have the watch's number, so that a watched table can be attached to a
-- watched partitioned table.
CREATE OR REPLACE FUNCTION brain.trigger_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('a trigger is missing or disabled on %s, so changes there are not seen: this creates it: '
                  '%s', string_agg(r.id::regclass::text, ', ' ORDER BY r.id::regclass::text),
                  brain.watch_command(watched, watched.relation::text))
      FROM (SELECT watched.relation::oid UNION SELECT relid FROM pg_partition_tree(watched.relation)) r (id)
     WHERE EXISTS (
         SELECT FROM unnest(ARRAY['!brain_1_row_', '!brain_2_truncate_']) name
          WHERE (name = '!brain_1_row_' OR r.id = watched.relation)
            AND NOT EXISTS (SELECT FROM pg_trigger t
                             WHERE t.tgrelid = r.id AND t.tgname = name || watched.id
                               AND t.tgenabled = CASE WHEN watched.is_replicated THEN 'A' ELSE 'O' END))
    HAVING count(*) > 0
$$;
REVOKE ALL ON FUNCTION brain.trigger_problem FROM PUBLIC;

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
        PERFORM brain.let_read('watch ' || watch, '{}', NULL), brain.append_watch_change('unwatched', watch);
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.unwatch_dropped FROM PUBLIC;

-- Tells all nodes that a watch has changed: they know the columns of each.
CREATE OR REPLACE FUNCTION brain.append_watch_change(type text, watch integer) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.append('brain.watches', type, 'P', NULL, json_build_object('watch', watch)::text, NULL, '')
$$;
REVOKE ALL ON FUNCTION brain.append_watch_change FROM PUBLIC;

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
-- membership in brain_owner; a later call also its owner's rights. The names of the triggers sort before
-- letters: if they fired after a trigger of the application that writes the row again, the older image would be
-- logged last.
CREATE OR REPLACE FUNCTION brain.watch(relation regclass, channel text, columns text[], types jsonb DEFAULT '{}',
                            timing text DEFAULT NULL, replicated boolean DEFAULT false,
                            column_bytes integer DEFAULT 262144, row_bytes integer DEFAULT 1048576,
                            rules jsonb DEFAULT NULL, exempt jsonb DEFAULT NULL, row_security text DEFAULT 'refused')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    keys CONSTANT text[] := brain.primary_key(relation);
    unknown CONSTANT text := brain.missing_columns(relation, columns);
    kind_problem CONSTANT text := brain.kind_problem(relation);
    may_create_triggers CONSTANT boolean := NOT EXISTS (
        SELECT FROM (SELECT relation UNION SELECT relid FROM pg_partition_tree(relation)) t (id)
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
        IS DISTINCT FROM (coalesce(former.rules, '{}'), coalesce(former.exempt, '{}'));
    rule_problem CONSTANT text := brain.rule_problem(relation, channel, row_rules, exemption);
    former_owner CONSTANT text := (
        SELECT o.table_name FROM brain.channel_tables o
         WHERE o.channel = watch.channel AND o.relation <> watch.relation AND o.table_name <> watch.relation::text);
    watched brain.watched;
    trigger_name text;
    limit_found text;
BEGIN
    IF kind_problem IS NOT NULL THEN
        RAISE EXCEPTION '%', kind_problem;
    ELSIF NOT may_create_triggers THEN
        RAISE EXCEPTION 'role % may not create triggers on %: its owner can allow it: GRANT TRIGGER ON % TO %',
              quote_ident(current_user), relation, relation, quote_ident(current_user)
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
                        '(rules => ''{"customer_id": "sub"}''), or row_security => ''ignored'': then each client '
                        'that may read the channel gets all rows', relation;
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
    IF former_owner IS NOT NULL THEN
        RAISE WARNING 'the channel % was that of table %: those who subscribe to it get rows of % from now on',
              channel, former_owner, relation;
    END IF;
    INSERT INTO brain.channel_tables VALUES (channel, relation, relation::text)
    ON CONFLICT ON CONSTRAINT channel_tables_pkey DO UPDATE
       SET relation = excluded.relation, table_name = excluded.table_name;
    IF has_new_rules THEN
        PERFORM brain.append_reset(channel, 'the row rules of the channel have changed');
    END IF;
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
    PERFORM brain.let_read_watched(watched);
    UPDATE brain.watched w SET known_limits = brain.limits(w) WHERE w.id = watched.id RETURNING w.* INTO watched;
    FOREACH limit_found IN ARRAY watched.known_limits LOOP
        RAISE WARNING '%', limit_found;
    END LOOP;
    PERFORM brain.append_watch_change('watched', watched.id);
END $watch$;
REVOKE ALL ON FUNCTION brain.watch FROM PUBLIC;

-- What is wrong with row rules, null if nothing is. The types are those of which equal values have equal JSON,
-- and different ones different JSON, whatever the collation.
CREATE OR REPLACE FUNCTION brain.rule_problem(relation regclass, channel text, rules jsonb, exempt jsonb) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN (SELECT CASE
        WHEN jsonb_typeof(rules) <> 'object' OR jsonb_path_exists(rules, '$.* ? (@.type() <> "string" || @ == "")')
            THEN format('row rules name a claim for each column, as in {"customer_id": "sub"}; not %s', rules)
        WHEN brain.missing_columns(relation, columns) IS NOT NULL
            THEN format('table %s has no column %s; it has %s', relation, brain.missing_columns(relation, columns),
                        brain.column_names(relation))
        WHEN jsonb_typeof(exempt) <> 'object'
             OR jsonb_path_exists(exempt, 'strict $.* ? (@.type() == "object" || @.type() == "null")')
            THEN format('the exemption from row rules names a value, or a list of values, for each claim, as in '
                        '{"role": "admin"}; not %s', exempt)
        WHEN rules <> '{}' AND feeds IS NOT NULL
            THEN format('row rules do not restrict the state of the feeds %s, which are woken by %s: define them with '
                        'argument_claim, or with row_security ignored', feeds, relation)
        ELSE (SELECT format('a row rule cannot compare the column %s of %s: its type is %s: columns of the types '
                            'smallint, integer, bigint, numeric, text, varchar, uuid, boolean, date and enums can '
                            'be compared', quote_ident(a.attname), relation, format_type(a.atttypid, a.atttypmod))
                FROM pg_attribute a JOIN pg_type t ON t.oid = brain.base_type(a.atttypid)
               WHERE a.attrelid = relation AND a.attname = ANY (columns) AND NOT a.attisdropped
                 AND t.typtype <> 'e' AND t.oid <> ALL ('{int2,int4,int8,numeric,text,varchar,uuid,bool,date}'
                                                        ::regtype[])
               ORDER BY a.attnum LIMIT 1)
        END
      FROM (SELECT CASE jsonb_typeof(rules) WHEN 'object' THEN ARRAY(SELECT jsonb_object_keys(rules)) END) r (columns),
           (SELECT string_agg(f.name, ', ' ORDER BY f.name) FROM brain.feeds f
             WHERE rule_problem.channel = ANY (f.channels) AND f.argument_claim IS NULL
               AND f.row_security = 'refused') w (feeds));
END $$;
REVOKE ALL ON FUNCTION brain.rule_problem FROM PUBLIC;

-- Restricts who may see which rows of a watched table: those in which each of the columns has the value, or one
-- of the values, of its claim in the client's token. {"customer_id": "sub"} is column = claim; {} ends all
-- restrictions. Clients with one of the claims in `exempt`, as in {"role": "admin"} or {"role": ["admin",
-- "support"]}, see all rows. Its clients get a reset, and the table is locked until nobody writes to it, so
-- that every event after the reset has the values by which it is decided.
CREATE OR REPLACE FUNCTION brain.restrict(relation regclass, rules jsonb, exempt jsonb DEFAULT '{}')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched brain.watched := (SELECT w FROM brain.watched w WHERE w.relation = restrict.relation);
    problem CONSTANT text := brain.rule_problem(relation, watched.channel, rules, exempt);
BEGIN
    IF watched.id IS NULL THEN
        RAISE EXCEPTION 'table % is not watched', relation;
    ELSIF rules IS NULL OR exempt IS NULL THEN
        RAISE EXCEPTION 'row rules are {} where there are none, not null';
    ELSIF problem IS NOT NULL THEN
        RAISE EXCEPTION '%', problem;
    ELSIF rules = '{}' AND watched.row_security = 'refused' AND brain.has_row_security(relation) THEN
        RAISE EXCEPTION '% has row-level security, and would be watched without row rules: watch it with '
                        'row_security => ''ignored'' first', relation;
    END IF;
    EXECUTE format('LOCK TABLE %s IN SHARE ROW EXCLUSIVE MODE', relation);
    UPDATE brain.watched w
       SET rules = restrict.rules, exempt = restrict.exempt, rule_number = nextval('brain.rule_number'),
           attributes = brain.attributes(restrict.relation, w.key_columns || w.columns
                                                   || ARRAY(SELECT jsonb_object_keys(restrict.rules)))
     WHERE w.id = watched.id RETURNING w.* INTO watched;
    PERFORM brain.let_read_watched(watched);
    UPDATE brain.watched w SET known_limits = brain.limits(w) WHERE w.id = watched.id RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched);
    PERFORM brain.append_reset(watched.channel, 'the row rules of the channel have changed'),
            brain.append_watch_change('watched', watched.id);
END $$;
REVOKE ALL ON FUNCTION brain.restrict FROM PUBLIC;

-- The JSON text of what a claim says for a column of a type, null if it says nothing that the type has.
CREATE OR REPLACE FUNCTION brain.claim_text(claim jsonb, type oid) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' AS $$
DECLARE
    text text;
BEGIN
    IF jsonb_typeof(claim) NOT IN ('string', 'number', 'boolean') THEN
        RETURN NULL;
    ELSIF EXISTS (SELECT FROM pg_enum e WHERE e.enumtypid = brain.base_type(type)) THEN
        -- Looked up: the owner of the type may have defined casts of it, which would run here.
        SELECT to_json(e.enumlabel)::text INTO text FROM pg_enum e
         WHERE e.enumtypid = brain.base_type(type) AND e.enumlabel = claim #>> '{}';
    ELSE
        -- Without the modifier of the column: a cast to varchar(3) would make another value of it.
        EXECUTE format('SELECT to_json($1::%s)::text', brain.base_type(type)::regtype) INTO text USING claim #>> '{}';
    END IF;
    RETURN text;
EXCEPTION WHEN OTHERS THEN
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION brain.claim_text FROM PUBLIC;

-- What the claims of a token say of those of `channels` that have row rules: the values that the columns of a
-- row must have, {"": [3], "customer_id": [7, 8]}, where 3 is the number of the rules, and that alone where the
-- rules do not restrict the client.
CREATE OR REPLACE FUNCTION brain.row_access(channels text[], claims jsonb)
RETURNS TABLE (channel text, allowed text) LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT w.channel,
           format('{"":[%s]', w.rule_number) || CASE WHEN
           EXISTS (SELECT FROM jsonb_each(w.exempt) e, jsonb_path_query(claims -> e.key, '$[*]') c,
                               jsonb_path_query(e.value, '$[*]') v
                    WHERE jsonb_typeof(c) IN ('string', 'number', 'boolean') AND c #>> '{}' = v #>> '{}')
           THEN '}' ELSE
           (SELECT ',' || string_agg(to_json(r.key)::text || ':[' || coalesce(texts, '') || ']', ',' ORDER BY r.key)
                       || '}'
              FROM jsonb_each_text(w.rules) r
              LEFT JOIN pg_attribute a ON a.attrelid = w.relation AND a.attname = r.key AND NOT a.attisdropped
             CROSS JOIN LATERAL (
                   SELECT string_agg(DISTINCT t, ',')
                     FROM (SELECT brain.claim_text(c, a.atttypid)
                             FROM jsonb_path_query(claims -> r.value, '$[*]') c) texts (t)) l (texts))
           END
      FROM brain.watched w
     WHERE w.rules <> '{}' AND w.channel = ANY (channels)
$$;
REVOKE ALL ON FUNCTION brain.row_access FROM PUBLIC;

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
    PERFORM brain.drop_triggers(watch, relation), brain.unwatch_dropped(),
            brain.let_read('watch ' || watch, '{}', NULL);
    IF EXISTS (SELECT FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
                WHERE c.oid = relation AND p.polname = '!brain_reader' AND pg_has_role(c.relowner, 'USAGE')) THEN
        EXECUTE format('DROP POLICY "!brain_reader" ON %s', relation);
    END IF;
    EXECUTE format('DROP FUNCTION brain.%I()', 'capture_' || watch);
    PERFORM brain.append_watch_change('unwatched', watch);
END $$;
REVOKE ALL ON FUNCTION brain.unwatch FROM PUBLIC;

-- What went wrong with single channels on the nodes that read the log and the tables.
CREATE TABLE IF NOT EXISTS brain.reader_problems (
    channel text        NOT NULL,
    problem text        NOT NULL,
    at      timestamptz NOT NULL,  -- when it happened last
    PRIMARY KEY (channel, problem)
);

-- Stores a problem of a reader, cut to what an index can hold, for brain.watches, and forgets those of the day
-- before.
CREATE OR REPLACE FUNCTION brain.report_problem(channel text, problem text) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM brain.reader_problems r WHERE r.at < clock_timestamp() - interval '1 day';
    INSERT INTO brain.reader_problems AS r
    SELECT w.channel, left($2, 300), clock_timestamp() FROM brain.watched w WHERE w.channel = $1
    ON CONFLICT (channel, problem) DO UPDATE SET at = excluded.at
$$;
REVOKE ALL ON FUNCTION brain.report_problem FROM PUBLIC;

-- The watched tables, with the problems of each.
CREATE OR REPLACE VIEW brain.watches AS
SELECT w.relation, w.channel, w.key_columns, w.columns, w.types,
       CASE WHEN w.is_deferred THEN 'deferred' ELSE 'immediate' END AS timing,
       w.is_replicated AS replicated, w.rules, w.exempt, w.row_security,
       CASE WHEN c.oid IS NULL THEN ARRAY[brain.name_problem(w)]
            ELSE array_remove(brain.name_problem(w) || brain.column_problems(w) || brain.trigger_problem(w), NULL)
                 || ARRAY(SELECT l FROM unnest(brain.limits(w)) l WHERE l <> ALL (w.known_limits))
       END || ARRAY(SELECT r.problem FROM brain.reader_problems r
                     WHERE r.channel = w.channel AND r.at > clock_timestamp() - interval '1 hour'
                     ORDER BY r.problem) AS problems
  FROM brain.watched w LEFT JOIN pg_class c ON c.oid = w.relation;

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

-- The table in a FROM clause: a partitioned table with its partitions, any other table alone, because its
-- triggers do not see what is written to tables that inherit from it.
CREATE OR REPLACE FUNCTION brain.table_expression(relation regclass) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN c.relkind = 'p' THEN '' ELSE 'ONLY ' END || relation::text
      FROM pg_class c WHERE c.oid = relation
$$;
REVOKE ALL ON FUNCTION brain.table_expression FROM PUBLIC;

-- The condition for the rows `r` of a watched table in which the columns have allowed values. Texts are compared
-- as events are: byte by byte, whatever the collation of the column.
CREATE OR REPLACE FUNCTION brain.rows_condition(watched brain.watched, allowed jsonb) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN watched.rules = '{}' THEN 'true'
                WHEN allowed -> '' IS DISTINCT FROM to_jsonb(ARRAY[watched.rule_number]) THEN 'false'
                WHEN allowed - '' = '{}' THEN 'true'
                ELSE coalesce(string_agg(coalesce(format('r.%I = ANY (%L::%s[])%s', a.attname,
                         ARRAY(SELECT jsonb_array_elements_text(allowed -> rule)), brain.base_type(a.atttypid)::regtype,
                         CASE WHEN NOT l.collisdeterministic
                              THEN format(' AND r.%I::text COLLATE "C" = ANY (%L::text[])', a.attname,
                                          ARRAY(SELECT jsonb_array_elements_text(allowed -> rule))) END), 'false'),
                     ' AND '), 'false') END
      FROM jsonb_object_keys(watched.rules) rule
      LEFT JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = rule AND NOT a.attisdropped
      LEFT JOIN pg_collation l ON l.oid = a.attcollation
$$;
REVOKE ALL ON FUNCTION brain.rows_condition FROM PUBLIC;

-- The query for the watched columns of every row, as JSON text; values that are omitted from events are
-- omitted here too. `allowed`, as brain.row_access returns it, says which rows of a table with row rules: none if
-- it is null, or of former rules. One that cannot be shown fails it, unless it is `careful`, which takes longer.
CREATE OR REPLACE FUNCTION brain.select_statement(watched brain.watched, careful boolean DEFAULT false,
                                                  allowed jsonb DEFAULT NULL) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($select$
        SELECT CASE WHEN octet_length(complete.data) <= %s THEN complete.data
                    ELSE brain.object_of(%L, %L, (brain.leave_out_largest(ARRAY[%s], NULL, %s, %s)).new_parts) END
          FROM %s r, LATERAL (SELECT CASE WHEN (%s) IS NOT TRUE THEN %s END AS data OFFSET 0) complete
         WHERE %s$select$,
        least(watched.column_bytes, watched.row_bytes), array_agg(name ORDER BY number),
        array_agg(is_listed ORDER BY number), string_agg(format(
            'CASE WHEN %s THEN NULL ELSE %s END', coalesce(size || ' > ' || watched.column_bytes, 'false'),
            format(CASE WHEN careful THEN 'brain.careful_text(%s, %s)'
                        ELSE 'brain.text_within(to_json(%s)::text, %s)' END,
                   CASE WHEN careful THEN value ELSE shown END,
                   CASE WHEN size LIKE 'octet_length%' THEN 'NULL' ELSE watched.column_bytes::text END)),
            ', ' ORDER BY number),
        cardinality(watched.key_columns), watched.row_bytes, brain.table_expression(watched.relation),
        CASE WHEN careful THEN 'true'
             ELSE coalesce('greatest(' || string_agg(size, ', ' ORDER BY number) || ') > ' || watched.column_bytes,
                           'false') END,
        brain.object_expression(array_agg(name ORDER BY number) FILTER (WHERE is_listed),
                                array_agg(shown ORDER BY number) FILTER (WHERE is_listed)),
        brain.rows_condition(watched, allowed))
      FROM brain.column_expressions(watched, 'r')
$$;
REVOKE ALL ON FUNCTION brain.select_statement FROM PUBLIC;

-- The JSON text of a value, null where it is longer than so many bytes or cannot be shown.
CREATE OR REPLACE FUNCTION brain.careful_text(value anyelement, bytes integer) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RETURN brain.text_within(brain.json_of(value), bytes);
EXCEPTION WHEN OTHERS OR assert_failure THEN
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION brain.careful_text FROM PUBLIC;

-- The JSON text of a value, null where it is longer than so many bytes.
CREATE OR REPLACE FUNCTION brain.text_within(value text, bytes integer) RETURNS text LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN value IS NULL THEN 'null' WHEN bytes IS NULL OR octet_length(value) <= bytes THEN value END
$$;
REVOKE ALL ON FUNCTION brain.text_within FROM PUBLIC;
