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
    row_security    text    NOT NULL      -- ignored: also where the channels have row rules; else refused
);

-- The state of a feed; JSON's null where its query returns no row. It runs with the rights of the caller,
-- and has one text per value, whatever the settings of the session.
CREATE OR REPLACE FUNCTION brain.feed(name text, argument text DEFAULT NULL) RETURNS jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, public, pg_temp SET extra_float_digits = 1 SET bytea_output = hex
SET datestyle = 'ISO, MDY' SET intervalstyle = postgres SET timezone = 'UTC' SET lc_monetary = 'C'
SET quote_all_identifiers = off AS $$
DECLARE
    statement text;
    state jsonb;
BEGIN
    SELECT f.query INTO statement FROM brain.feeds f
     WHERE f.name = feed.name AND f.takes_argument = (argument IS NOT NULL);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no feed % that takes %', name,
              CASE WHEN argument IS NULL THEN 'no argument' ELSE 'an argument' END
              USING ERRCODE = 'undefined_object';
    END IF;
    EXECUTE format(E'SELECT (\n%s\n)', statement) INTO state USING argument;
    RETURN coalesce(state, 'null');
END $$;
REVOKE ALL ON FUNCTION brain.feed FROM PUBLIC;

-- The type of a query's result. Fails if that has several columns or rows.
CREATE OR REPLACE FUNCTION brain.result_type(query text, takes_argument boolean) RETURNS text
LANGUAGE plpgsql STABLE SET search_path = pg_catalog, public, pg_temp AS $$
DECLARE
    statement CONSTANT text := format(E'SELECT pg_typeof((\n%s\n))', query);
    type text;
BEGIN
    IF takes_argument THEN
        EXECUTE statement INTO type USING NULL::text;
    ELSE
        EXECUTE statement INTO type;
    END IF;
    RETURN type;
EXCEPTION WHEN undefined_parameter THEN
    RAISE EXCEPTION '%: a query may use $1, with takes_argument => true, and no other', SQLERRM
          USING ERRCODE = 'undefined_parameter';
END $$;
REVOKE ALL ON FUNCTION brain.result_type FROM PUBLIC;

-- Creates or replaces a feed; running servers notice it. For members of brain_owner.
--
-- name: the part of the URLs /ws/<name> and /api/<name>; its messages have the type <name>_update, with _
--     for -.
-- query: returns the state, one value of type jsonb. Unqualified names are looked up in schema public.
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
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    statement CONSTANT text := regexp_replace(query, '[\s;]+$', '');
    restricted CONSTANT text := (SELECT string_agg(w.channel, ', ' ORDER BY w.channel) FROM brain.watched w
                                  WHERE w.channel = ANY (channels) AND w.rules <> '{}');
    type text;
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
    type := brain.result_type(statement, takes_argument);
    IF type <> 'jsonb' THEN
        RAISE EXCEPTION 'the query of the feed % has to return jsonb, not %', name, type
              USING ERRCODE = 'datatype_mismatch';
    END IF;
    INSERT INTO brain.feeds AS f
    VALUES (name, statement, channels, takes_argument, argument_is_key, ignored_keys, argument_claim, row_security)
    ON CONFLICT ON CONSTRAINT feeds_pkey DO UPDATE
       SET query = excluded.query, channels = excluded.channels, takes_argument = excluded.takes_argument,
           argument_is_key = excluded.argument_is_key, ignored_keys = excluded.ignored_keys,
           argument_claim = excluded.argument_claim, row_security = excluded.row_security;
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
    PERFORM brain.append('brain.feeds', 'feed_dropped', 'P', NULL, json_build_object('name', name)::text, NULL, '');
END $$;
REVOKE ALL ON FUNCTION brain.drop_feed FROM PUBLIC;
