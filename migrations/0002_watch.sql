-- Any table can be watched: brain.watch writes a trigger function for just its columns and puts it on
-- the table. The functions are generated because a generic one pays for looking its columns up in
-- every row, and because only the listed columns may ever reach the log.

SET LOCAL ROLE brain_owner;

CREATE TABLE brain.watched (
    id          integer  GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    relation    regclass NOT NULL UNIQUE,
    channel     text     NOT NULL UNIQUE,
    key_columns text[]   NOT NULL,
    columns     text[]   NOT NULL
);

-- Appends one event, in the slot of the hour. By clock_timestamp(): a long transaction would write
-- into a slot that is about to be emptied. Called with the rights of brain_owner, under whatever
-- search_path the writer has: hence the qualified names here and in what write_capture generates.
CREATE FUNCTION brain.append(channel text, operation "char", key jsonb, data jsonb, old jsonb)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    at CONSTANT pg_catalog.timestamptz := pg_catalog.clock_timestamp();
    slot CONSTANT pg_catalog.int8 := pg_catalog.date_part('epoch', at)::pg_catalog.int8
        OPERATOR(pg_catalog./) 43200 OPERATOR(pg_catalog.%) 4;
BEGIN
    IF slot OPERATOR(pg_catalog.=) 0 THEN
        INSERT INTO brain.events_0 VALUES (pg_catalog.pg_current_xact_id(),
            pg_catalog.nextval('brain.event_id'), at, channel, operation, key, data, old);
    ELSIF slot OPERATOR(pg_catalog.=) 1 THEN
        INSERT INTO brain.events_1 VALUES (pg_catalog.pg_current_xact_id(),
            pg_catalog.nextval('brain.event_id'), at, channel, operation, key, data, old);
    ELSIF slot OPERATOR(pg_catalog.=) 2 THEN
        INSERT INTO brain.events_2 VALUES (pg_catalog.pg_current_xact_id(),
            pg_catalog.nextval('brain.event_id'), at, channel, operation, key, data, old);
    ELSE
        INSERT INTO brain.events_3 VALUES (pg_catalog.pg_current_xact_id(),
            pg_catalog.nextval('brain.event_id'), at, channel, operation, key, data, old);
    END IF;
END $$;

-- The expression that picks columns out of the whole row as jsonb. It reads the row by name at run
-- time, so a column that is renamed or dropped becomes null here and never fails the writer. Fifty
-- at a time: a function takes a hundred arguments.
CREATE FUNCTION brain.picking(columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT string_agg(part, ' OPERATOR(pg_catalog.||) ' ORDER BY number)
      FROM (SELECT (position - 1) / 50 AS number,
                   format('pg_catalog.jsonb_build_object(%s)', string_agg(
                       format('%1$L, image OPERATOR(pg_catalog.->) %1$L', name), ', ' ORDER BY position))
                   AS part
              FROM unnest(columns) WITH ORDINALITY c(name, position)
             GROUP BY 1) parts
$$;

-- The names of the columns whose values are the same before and after.
CREATE FUNCTION brain.unchanged(columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('ARRAY[%s]', string_agg(format(
               'CASE WHEN (old_data OPERATOR(pg_catalog.->) %1$L) OPERATOR(pg_catalog.=)'
               ' (data OPERATOR(pg_catalog.->) %1$L) THEN %1$L END', name), ', ' ORDER BY position))
      FROM unnest(columns) WITH ORDINALITY c(name, position)
$$;

CREATE FUNCTION brain.key_of(columns text[]) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT format('pg_catalog.jsonb_build_array(%s)', string_agg(
               format('image OPERATOR(pg_catalog.->) %L', name), ', ' ORDER BY position))
      FROM unnest(columns) WITH ORDINALITY c(name, position)
$$;

-- Former values are only looked at, never fetched again: of an oversized row the long ones are left out.
CREATE FUNCTION brain.without_long_values(old jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT jsonb_object_agg(name, CASE WHEN pg_column_size(value) > 8192 THEN 'null' ELSE value END)
      FROM jsonb_each(old) e(name, value)
$$;

-- Writes the trigger function of one watched table, or writes it anew.
CREATE FUNCTION brain.write_capture(watched brain.watched) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
BEGIN
    EXECUTE format($body$
CREATE OR REPLACE FUNCTION brain.%1$I() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $capture$
DECLARE
    image pg_catalog.jsonb;
    data pg_catalog.jsonb;
    key pg_catalog.jsonb;
    old_data pg_catalog.jsonb;
    old_key pg_catalog.jsonb;
BEGIN
    IF TG_LEVEL OPERATOR(pg_catalog.=) 'STATEMENT' THEN
        PERFORM brain.append(%2$L, 'T', NULL, NULL, NULL);
        RETURN NULL;
    END IF;
    IF TG_OP OPERATOR(pg_catalog.<>) 'INSERT' THEN
        image := pg_catalog.to_jsonb(OLD);
        old_data := %3$s;
        old_key := %4$s;
        IF pg_catalog.pg_column_size(old_data) OPERATOR(pg_catalog.>) 262144 THEN
            old_data := brain.without_long_values(old_data);
        END IF;
    END IF;
    IF TG_OP OPERATOR(pg_catalog.<>) 'DELETE' THEN
        image := pg_catalog.to_jsonb(NEW);
        data := %3$s;
        key := %4$s;
    END IF;
    IF key OPERATOR(pg_catalog.=) old_key THEN
        IF data OPERATOR(pg_catalog.=) old_data THEN
            RETURN NULL;
        END IF;
    ELSIF old_key IS NOT NULL THEN
        PERFORM brain.append(%2$L, 'D', old_key, NULL, old_data);
    END IF;
    IF key IS NOT NULL THEN
        old_data := old_data OPERATOR(pg_catalog.-) (%5$s);
        IF pg_catalog.pg_column_size(data) OPERATOR(pg_catalog.>) 262144 THEN
            data := NULL;
        END IF;
        PERFORM brain.append(%2$L, CASE WHEN old_data IS NULL THEN 'I' ELSE 'U' END::pg_catalog."char",
                             key, data, old_data);
    END IF;
    RETURN NULL;
END $capture$;
ALTER FUNCTION brain.%1$I() OWNER TO brain_owner;
REVOKE ALL ON FUNCTION brain.%1$I() FROM PUBLIC$body$,
        'capture_' || watched.id, watched.channel, brain.picking(watched.columns),
        brain.key_of(watched.key_columns), brain.unchanged(watched.columns));
END $write$;

-- Rings the bell. What is heard says only "look", so nothing can be forged with it.
CREATE FUNCTION brain.ring() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_catalog.pg_notify('brain', '');
    RETURN NULL;
END $$;

-- Puts the triggers on a table. Takes a SHARE ROW EXCLUSIVE lock on it for a moment, and needs its
-- TRIGGER privilege. The names sort before a letter: were they to fire after a trigger of the
-- application that writes the row again, the older image would be logged last.
CREATE FUNCTION brain.watch(relation regclass, channel text, columns text[]) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $watch$
DECLARE
    keys text[] := (
        SELECT array_agg(a.attname::text ORDER BY k.position)
          FROM pg_index i
         CROSS JOIN LATERAL unnest(i.indkey::int2[]) WITH ORDINALITY k(attnum, position)
          JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
         WHERE i.indrelid = relation AND i.indisprimary);
    unknown text := (
        SELECT string_agg(name, ', ') FROM unnest(columns) name
         WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation
                            AND a.attname = name AND a.attnum > 0 AND NOT a.attisdropped));
    watched brain.watched;
    capture text;
BEGIN
    IF keys IS NULL THEN
        RAISE EXCEPTION 'table % has no primary key', relation;
    ELSIF unknown IS NOT NULL THEN
        RAISE EXCEPTION 'table % has no column %', relation, unknown;
    END IF;
    INSERT INTO brain.watched AS w (relation, channel, key_columns, columns)
    VALUES (relation, channel, keys, columns)
    ON CONFLICT ON CONSTRAINT watched_relation_key DO UPDATE
       SET channel = excluded.channel, key_columns = excluded.key_columns, columns = excluded.columns
    RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched);
    capture := format('brain.%I()', 'capture_' || watched.id);
    EXECUTE format($triggers$
CREATE OR REPLACE TRIGGER "!brain_1_row" AFTER INSERT OR UPDATE OR DELETE ON %1$s
    FOR EACH ROW EXECUTE FUNCTION %2$s;
CREATE OR REPLACE TRIGGER "!brain_2_truncate" AFTER TRUNCATE ON %1$s
    FOR EACH STATEMENT EXECUTE FUNCTION %2$s;
-- A node that sleeps holds the lock in shared mode. Whoever can take it alone knows that nobody
-- sleeps, and spares himself the NOTIFY, which serialises commits.
CREATE OR REPLACE TRIGGER "!brain_3_bell" AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE ON %1$s
    FOR EACH STATEMENT
    WHEN (CASE WHEN pg_try_advisory_lock(5221, 2) THEN NOT pg_advisory_unlock(5221, 2) ELSE true END)
    EXECUTE FUNCTION brain.ring()$triggers$, relation, capture);
END $watch$;

-- A row that was too large for the log, as it is now; null if it is gone. With the reader's rights:
-- brain_owner has none on the watched tables.
CREATE FUNCTION brain.current_row(channel text, key jsonb) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched brain.watched;
    matches text;
    row jsonb;
BEGIN
    SELECT w.* INTO STRICT watched FROM brain.watched w WHERE w.channel = current_row.channel;
    SELECT string_agg(format('t.%I = ($1 ->> %s)::%s', name, position - 1,
                             format_type(a.atttypid, a.atttypmod)), ' AND ')
      INTO matches
      FROM unnest(watched.key_columns) WITH ORDINALITY c(name, position)
      JOIN pg_attribute a ON a.attrelid = watched.relation AND a.attname = c.name;
    EXECUTE format('SELECT %s FROM (SELECT to_jsonb(t) AS image FROM %s t WHERE %s) i',
                   brain.picking(watched.columns), watched.relation, matches)
       INTO row USING key;
    RETURN row;
END $$;
