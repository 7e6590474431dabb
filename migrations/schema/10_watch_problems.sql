-- What is wrong with watches, for brain.watches: each problem with the way out.
--
-- Locks: brain.watches ACCESS EXCLUSIVE

SET LOCAL ROLE brain_owner;

-- What else a writer may do that the channel of a watch does not show, or shows in another way, and what
-- keeps Brain from reading the table, each with the way out. A watch works all the same.
CREATE OR REPLACE FUNCTION brain.limits(watched brain.watched) RETURNS text[] LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH RECURSIVE relations (id) AS (
        SELECT brain.partition_tree(watched.relation)),
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
         HAVING count(*) > 0),
        (SELECT format('columns of %s have types of too many fields (%s): their values are sent as the text that '
                       'PostgreSQL prints', watched.relation,
                       string_agg(format('%s %s', quote_ident(name), format_type(type, modifier)), ', '
                                  ORDER BY number))
           FROM listed WHERE type >= 16384 AND brain.is_too_large(type)
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

-- Why the owner of a partitioned table can create no partition of it any more; null if that can.
CREATE OR REPLACE FUNCTION brain.owner_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT format('the owner of %s, %s, can create and attach no partition: this allows it: %s', watched.relation,
                  c.relowner::regrole, brain.watch_command(watched, watched.relation::text))
      FROM pg_class c
     WHERE c.oid = watched.relation AND c.relkind = 'p'
       AND NOT has_function_privilege(c.relowner, brain.capture_of(watched.id), 'EXECUTE')
$$;
REVOKE ALL ON FUNCTION brain.owner_problem FROM PUBLIC;

-- The tables on which a trigger of a watch is missing, disabled or renamed: that is the table or some of its
-- partitions. The triggers' names have the watch's number, so that a watched table can be attached to a
-- watched partitioned table.
CREATE OR REPLACE FUNCTION brain.trigger_problem(watched brain.watched) RETURNS text LANGUAGE sql STABLE
SET search_path = pg_catalog, pg_temp AS $$
    WITH wanted AS (
        SELECT r.id, n.name || watched.id AS name, n.type
          FROM brain.partition_tree(watched.relation) r (id),
               (VALUES ('!brain_1_row_', 29), ('!brain_2_truncate_', 32)) n (name, type)
         WHERE n.type = 29 OR r.id = watched.relation),
    present AS (
        SELECT t.tgrelid AS id, t.tgname AS name, t.tgtype AS type
          FROM pg_trigger t
         WHERE t.tgfoid = (SELECT brain.capture_of(watched.id)) AND t.tgrelid IN (SELECT w.id FROM wanted w)
           AND t.tgenabled = CASE WHEN watched.is_replicated THEN 'A' ELSE 'O' END)
    SELECT coalesce(
        (SELECT format('a trigger is missing or disabled on %s, so changes there are not seen: this creates it: %s',
                       string_agg(DISTINCT w.id::regclass::text, ', '),
                       brain.watch_command(watched, watched.relation::text))
           FROM wanted w
          WHERE NOT EXISTS (SELECT FROM present p WHERE p.id = w.id AND p.type = w.type)
         HAVING count(*) > 0),
        (SELECT format('a trigger of Brain has another name on %s (%s), by which it may fire too late or twice: this '
                       'creates it anew: %s', watched.relation, string_agg(quote_ident(p.name), ', ' ORDER BY p.name),
                       brain.watch_command(watched, watched.relation::text))
           FROM present p
          WHERE p.id = watched.relation AND NOT EXISTS (SELECT FROM wanted w WHERE w.id = p.id AND w.name = p.name)
         HAVING count(*) > 0))
$$;
REVOKE ALL ON FUNCTION brain.trigger_problem FROM PUBLIC;

-- What went wrong with single channels on the nodes that read the log and the tables.
CREATE TABLE IF NOT EXISTS brain.reader_problems (
    channel text        NOT NULL,
    problem text        NOT NULL,
    at      timestamptz NOT NULL,  -- when it happened last
    PRIMARY KEY (channel, problem)
);

-- Stores a problem of a reader, cut to what an index can hold, for brain.watches, and forgets those of the day
-- before. What brain.watches finds out by itself is not stored: it ends when it is solved.
CREATE OR REPLACE FUNCTION brain.report_problem(channel text, problem text) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM brain.reader_problems r WHERE r.at < clock_timestamp() - interval '1 day';
    INSERT INTO brain.reader_problems AS r
    SELECT w.channel, left($2, 300), clock_timestamp() FROM brain.watched w
     WHERE w.channel = $1 AND coalesce(strpos($2, brain.reader_problem(w)), 0) = 0
    ON CONFLICT (channel, problem) DO UPDATE SET at = excluded.at
$$;
REVOKE ALL ON FUNCTION brain.report_problem FROM PUBLIC;

-- The watched tables, with the problems of each.
CREATE OR REPLACE VIEW brain.watches AS
SELECT w.relation, w.channel, w.key_columns, w.columns, w.types,
       CASE WHEN w.is_deferred THEN 'deferred' ELSE 'immediate' END AS timing,
       w.is_replicated AS replicated, w.rules, w.exempt, w.row_security,
       CASE WHEN c.oid IS NULL THEN ARRAY[brain.name_problem(w)]
            ELSE array_remove(brain.name_problem(w) || brain.column_problems(w)
                              || brain.trigger_problem(w) || brain.owner_problem(w), NULL)
                 || ARRAY(SELECT l FROM unnest(brain.limits(w)) l
                           WHERE l <> ALL (w.known_limits) OR l = brain.reader_problem(w))
       END || ARRAY(SELECT r.problem FROM brain.reader_problems r
                     WHERE r.channel = w.channel AND r.at > clock_timestamp() - interval '1 hour'
                     ORDER BY r.problem) AS problems
  FROM brain.watched w LEFT JOIN pg_class c ON c.oid = w.relation;
