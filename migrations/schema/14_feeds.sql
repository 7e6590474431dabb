-- A feed is a query. Its result is sent in full to each client that connects, and again when it has
-- changed. The query runs again after an event on one of the feed's channels.

SET LOCAL ROLE brain_owner;

CREATE TABLE IF NOT EXISTS brain.feeds (
    name            text    PRIMARY KEY,  -- in the URL
    query           text    NOT NULL,     -- of one row with one column, of type jsonb
    channels        text[]  NOT NULL,
    takes_argument  boolean NOT NULL,     -- $1 in the query, which comes from the URL
    argument_is_key boolean NOT NULL,     -- true if only the row with this primary key matters
    ignored_keys    text[]  NOT NULL,     -- keys of the state: a change of these alone is not sent
    argument_claim  text,                 -- the claim of the client's token that $1 comes from, not the URL
    row_security    text    NOT NULL,     -- ignored: also where the channels have row rules; else refused
    bound_query     text    NOT NULL      -- what is run: `query` with the names as they were when it was defined
);

-- What a query of a feed is passed to: a function that takes nothing but jsonb.
CREATE OR REPLACE FUNCTION brain.as_state(state jsonb) RETURNS jsonb LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT state
$$;
REVOKE ALL ON FUNCTION brain.as_state FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain.as_state TO brain_reader;

-- The prepared statements of this session.
CREATE OR REPLACE FUNCTION brain.prepared_statements() RETURNS text[] LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT (name, statement, prepare_time)::text FROM pg_prepared_statements)
$$;
REVOKE ALL ON FUNCTION brain.prepared_statements FROM PUBLIC;

-- Fails if there are others than these, and removes all: code of others may have prepared them, which no rollback
-- undoes, and they would run with the rights of the session.
CREATE OR REPLACE FUNCTION brain.require_prepared_statements(expected text[], feed text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF expected <> brain.prepared_statements() THEN
        DEALLOCATE ALL;
        RAISE EXCEPTION 'what the query of the feed % names has changed the prepared statements of this session', feed;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.require_prepared_statements FROM PUBLIC;

-- The state of a feed as JSON text; null where its query returns no row. It runs with the rights of brain_reader, as
-- brain.open_reader says, and has one text per value, whatever the settings of the session.
CREATE OR REPLACE FUNCTION brain.feed(name text, argument text DEFAULT NULL) RETURNS text LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statement CONSTANT text := (SELECT f.bound_query FROM brain.feeds f
                                 WHERE f.name = feed.name AND f.takes_argument = (argument IS NOT NULL));
    prepared CONSTANT text[] := brain.prepared_statements();
    state text;
BEGIN
    IF statement IS NULL THEN
        RAISE EXCEPTION 'there is no feed % that takes %', name,
              CASE WHEN argument IS NULL THEN 'no argument' ELSE 'an argument' END
              USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM brain.open_reader();
    BEGIN
        state := (SELECT r FROM pg_temp.brain_read(format('SELECT (%s)::text', statement), argument) r);
        RAISE SQLSTATE 'BRAIN';
    EXCEPTION WHEN SQLSTATE 'BRAIN' THEN
        NULL;  -- what the code has set, and its cursors, are gone
    END;
    PERFORM brain.require_prepared_statements(prepared, name);
    RETURN coalesce(state, 'null');
END $$;
REVOKE ALL ON FUNCTION brain.feed FROM PUBLIC;

-- A query as PostgreSQL understands it today: each name with its schema, unless that is pg_catalog; so what others
-- create later in a schema of the search path takes the place of nothing in it. And the relations that it reads.
--
-- It is parsed as the body of a function, and not run. To parse is to convert literals, which calls what others have
-- defined (the conditions of domains): so that happens as brain_reader, and all that it may have done is rolled back.
-- Only prepared statements are not: one that is another by now would run with the caller's rights.
CREATE OR REPLACE FUNCTION brain.bind_query(feed text, query text, takes_argument boolean,
                                            OUT bound_query text, OUT relations oid[])
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    former_role CONSTANT text := current_setting('role');
    prepared CONSTANT text[] := brain.prepared_statements();
    schema regnamespace;
    probe oid;
    failure text;
    code text;
    hint text;
BEGIN
    BEGIN
        FOR schema IN SELECT n.oid FROM pg_namespace n
                       WHERE (n.nspname = 'public' OR strpos(query, n.nspname) > 0)
                         AND NOT has_schema_privilege('brain_reader', n.oid, 'USAGE')
                         AND has_schema_privilege(n.oid, 'USAGE WITH GRANT OPTION') LOOP
            EXECUTE format('GRANT USAGE ON SCHEMA %s TO brain_reader', schema);
        END LOOP;
        PERFORM set_config('role', 'brain_reader', true);
        CREATE FUNCTION pg_temp.brain_bind(statement text) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
        SET search_path = pg_catalog, public, pg_temp AS 'BEGIN EXECUTE statement; END';
        PERFORM set_config('role', former_role, true);
        PERFORM pg_temp.brain_bind(format(
            E'CREATE FUNCTION pg_temp.brain_query(%s) RETURNS jsonb LANGUAGE sql BEGIN ATOMIC '
            'SELECT brain.as_state((\n%s\n)); END', CASE WHEN takes_argument THEN 'text' END, query));
        -- The code may have changed it, beyond the end of that function.
        PERFORM pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true);
        probe := (SELECT p.oid FROM pg_proc p WHERE p.pronamespace = pg_my_temp_schema() AND p.proname = 'brain_query');
        relations := ARRAY(SELECT DISTINCT c.oid FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid
                            WHERE d.classid = 'pg_proc'::regclass AND d.objid = probe
                              AND d.refclassid = 'pg_class'::regclass AND c.relkind IN ('r', 'p', 'v', 'm', 'f'));
        bound_query := substring(pg_get_function_sqlbody(probe) FROM '^BEGIN ATOMIC\s+(.*);\s*END$');
        RAISE SQLSTATE 'BRAIN';
    EXCEPTION
        WHEN SQLSTATE 'BRAIN' THEN
            NULL;  -- all is rolled back but the variables
        WHEN OTHERS OR query_canceled OR assert_failure THEN
            GET STACKED DIAGNOSTICS failure = MESSAGE_TEXT, code = RETURNED_SQLSTATE, hint = PG_EXCEPTION_HINT;
    END;
    PERFORM brain.require_prepared_statements(prepared, feed);
    IF bound_query IS NULL THEN
        RAISE EXCEPTION USING ERRCODE = code, HINT = hint, MESSAGE = CASE
            WHEN code = '42P02'
                THEN failure || ': a query may use $1, with takes_argument => true, and no other'
            WHEN code = '42883' AND failure LIKE '% brain.as_state(%'
                THEN format('the query of the feed %s has to return jsonb, not %s', feed,
                            substring(failure FROM 'brain\.as_state\((.*)\)'))
            ELSE failure END;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.bind_query FROM PUBLIC;

-- Creates or replaces a feed; running servers notice it. For members of brain_owner.
--
-- name: the part of the URLs /ws/<name> and /api/<name>; its messages have the type <name>_update, with _
--     for -.
-- query: returns the state, one value of type jsonb. Unqualified names are looked up in schema public, once. It
--     runs as brain_reader, which may read its tables from now on if the caller may allow that, and does not write.
-- channels: the query runs again after an event on one of them: of a watched table, or published.
-- takes_argument: the query has a $1, of type text, and a state for each: /ws/<name>/<argument>.
-- argument_is_key: only events of the row with this primary key matter.
-- ignored_keys: keys of the state, if it is an object: a change of these alone is not sent (times, counters).
-- argument_claim: $1 is this claim of the client's token, and the URL is /ws/<name>: each gets a state of its own.
-- row_security: 'ignored' for a feed on a channel with row rules that does not take its argument from a claim:
--     every client that may read the feed gets the whole state.
CREATE OR REPLACE FUNCTION brain.define_feed(name text, query text, channels text[],
                                  takes_argument boolean DEFAULT false,
                                  argument_is_key boolean DEFAULT false,
                                  ignored_keys text[] DEFAULT '{}',
                                  argument_claim text DEFAULT NULL,
                                  row_security text DEFAULT 'refused')
RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET standard_conforming_strings = on AS $$
DECLARE
    statement CONSTANT text := regexp_replace(query, '[\s;]+$', '');
    restricted CONSTANT text := (SELECT string_agg(w.channel, ', ' ORDER BY w.channel) FROM brain.watched w
                                  WHERE w.channel = ANY (channels) AND w.rules <> '{}');
    bound record;
    unreadable text;
BEGIN
    IF name IS NULL OR name !~ '^[a-z][a-z0-9]*(-[a-z0-9]+)*$' OR length(name) > 63 THEN
        RAISE EXCEPTION 'a feed name has at most 63 lower-case letters and digits, with - between words, not %',
              coalesce(quote_literal(name), 'NULL') USING ERRCODE = 'invalid_name';
    ELSIF name IN ('brain', 'channel', 'connect') THEN
        RAISE EXCEPTION 'no feed can be named %: that address is taken', name
              USING ERRCODE = 'reserved_name';
    ELSIF coalesce(cardinality(channels), 0) = 0 OR array_position(channels, NULL) IS NOT NULL
          OR '' = ANY (channels) THEN
        RAISE EXCEPTION 'the feed % needs the name of at least one channel', name
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(statement, '') = '' THEN
        RAISE EXCEPTION 'the feed % has no query', name USING ERRCODE = 'invalid_parameter_value';
    ELSIF takes_argument AND statement !~ '\$1(?![0-9])' THEN
        RAISE EXCEPTION 'the feed % takes an argument, and its query does not use $1', name
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF argument_is_key AND NOT takes_argument THEN
        RAISE EXCEPTION 'the feed % takes no argument that could be a key', name
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF ignored_keys IS NULL OR array_position(ignored_keys, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'ignored_keys must not contain NULL' USING ERRCODE = 'invalid_parameter_value';
    ELSIF argument_claim = '' OR (argument_claim IS NOT NULL AND NOT takes_argument) THEN
        RAISE EXCEPTION 'the feed % takes no argument that could come from a claim', name
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF row_security IS NULL OR row_security NOT IN ('refused', 'ignored') THEN
        RAISE EXCEPTION 'row_security is refused or ignored, not %', row_security
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF restricted IS NOT NULL AND argument_claim IS NULL AND row_security = 'refused' THEN
        RAISE EXCEPTION 'the channels of the feed % have row rules (%), which do not restrict its state: take its '
                        'argument from a claim (argument_claim => ''sub''), or say row_security => ''ignored'': then '
                        'each client that may read the feed gets all of it', name, restricted
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    bound := brain.bind_query(name, statement, takes_argument);
    IF EXISTS (SELECT FROM pg_class c WHERE c.oid = ANY (bound.relations)
                  AND c.relnamespace = 'brain'::regnamespace) THEN
        RAISE EXCEPTION 'the feed % reads a table of Brain''s own', name USING ERRCODE = 'invalid_parameter_value';
    END IF;
    PERFORM brain.let_read('feed ' || name, bound.relations, NULL);
    FOR unreadable IN
        SELECT format('brain_reader may not read %s, so the feed %s fails: %s', r::regclass, name, commands)
          FROM unnest(bound.relations) r, brain.reader_commands(r, NULL) commands WHERE commands IS NOT NULL
    LOOP
        RAISE WARNING '%', unreadable;
    END LOOP;
    INSERT INTO brain.feeds AS f
    VALUES (name, statement, channels, takes_argument, argument_is_key, ignored_keys, argument_claim, row_security,
            bound.bound_query)
    ON CONFLICT ON CONSTRAINT feeds_pkey DO UPDATE
       SET query = excluded.query, channels = excluded.channels, takes_argument = excluded.takes_argument,
           argument_is_key = excluded.argument_is_key, ignored_keys = excluded.ignored_keys,
           argument_claim = excluded.argument_claim, row_security = excluded.row_security,
           bound_query = excluded.bound_query;
    PERFORM brain.append('brain.feeds', 'feed_defined', 'P', NULL, json_build_object('name', name)::text, NULL, '');
END $$;
REVOKE ALL ON FUNCTION brain.define_feed FROM PUBLIC;

-- Removes a feed; its clients are disconnected.
CREATE OR REPLACE FUNCTION brain.drop_feed(name text) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    DELETE FROM brain.feeds f WHERE f.name = drop_feed.name;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no feed %', name USING ERRCODE = 'undefined_object';
    END IF;
    PERFORM brain.let_read('feed ' || name, '{}', NULL);
    PERFORM brain.append('brain.feeds', 'feed_dropped', 'P', NULL, json_build_object('name', name)::text, NULL, '');
END $$;
REVOKE ALL ON FUNCTION brain.drop_feed FROM PUBLIC;
