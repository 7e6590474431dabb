-- Tables and feeds of the systems that are switched on. A system's schema declares them with
-- brain.adopt_table and brain.adopt_feed, which are called again whenever the schema is applied. They
-- never alter a table or a feed that is not their own, and never fail because of one: what they leave
-- out is a warning, which brain.system_problems shows later, and is tried again at each migration.
--
-- Locks: brain.system_problems ACCESS EXCLUSIVE
-- Locks: brain.system_table_status ACCESS EXCLUSIVE

SET LOCAL ROLE brain_owner;

CREATE TABLE IF NOT EXISTS brain.system_tables (
    relation  text     PRIMARY KEY,  -- public.tasks
    schema    text     NOT NULL,     -- the schema that declares it
    channel   text     NOT NULL,
    required  text[]   NOT NULL,     -- columns without which the table is not watched
    wanted    text[]   NOT NULL,     -- more columns to watch, as far as the table has them
    unwatched text[]   NOT NULL,     -- required columns that are read; a change of these alone is no event
    created     regclass,            -- the table, if Brain created it
    failure     text,                -- why brain.watch refused the table last
    substitutes jsonb    NOT NULL,   -- {"progress": "current_step"}: watched where the first is missing
    document    text,                -- a column of type json or jsonb, watched where one of these is missing:
    in_document text[]   NOT NULL
);

-- The columns to watch of a declared table as it is, with what stands in for wanted ones that are missing.
-- With is_full, also those that are missing and that nothing stands in for.
CREATE OR REPLACE FUNCTION brain.system_columns(declared brain.system_tables, is_full boolean) RETURNS text[]
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    WITH present AS (
        SELECT a.attname::text AS name, a.attgenerated = 'v' AS is_virtual,  -- which triggers do not see
               a.atttypid IN ('json'::regtype, 'jsonb'::regtype) AS is_json
          FROM pg_attribute a
         WHERE a.attrelid = (SELECT brain.relation_of(declared.relation)) AND a.attnum > 0 AND NOT a.attisdropped),
    columns AS (
        SELECT c.place, c.name, c.place <= cardinality(declared.required) AS is_required,
               p.name IS NOT NULL AS is_present, p.is_virtual,
               CASE WHEN p.name IS NULL
                    THEN coalesce((SELECT s.name FROM present s WHERE s.name = declared.substitutes ->> c.name),
                                  (SELECT d.name FROM present d
                                    WHERE d.name = declared.document AND d.is_json
                                      AND c.name = ANY (declared.in_document))) END AS stand_in
          FROM unnest(declared.required || declared.wanted) WITH ORDINALITY c (name, place)
          LEFT JOIN present p ON p.name = c.name)
    SELECT ARRAY(SELECT name FROM columns
                  WHERE name <> ALL (declared.unwatched)
                    AND (is_required OR (is_present AND NOT is_virtual) OR (is_full AND stand_in IS NULL))
                  ORDER BY place)
        || ARRAY(SELECT stand_in FROM columns WHERE stand_in IS NOT NULL GROUP BY 1 ORDER BY min(place))
$$;
REVOKE ALL ON FUNCTION brain.system_columns FROM PUBLIC;

-- The declared tables: what is there, what is watched, and the problem of each with the way out.
CREATE OR REPLACE VIEW brain.system_table_status AS
SELECT s.schema, s.relation, s.channel, s.required, s.wanted, s.table_exists, s.created_by_brain,
       s.has_primary_key, s.missing_required, s.missing_wanted, s.is_watched,
       CASE WHEN NOT s.table_exists AND s.failure IS NULL
                THEN format('%s does not exist; this creates it: brain migrate', s.relation)
            WHEN NOT s.table_exists
                THEN format('%s does not exist: %s: fix that, then run: brain migrate', s.relation, s.failure)
            WHEN s.relkind NOT IN ('r', 'p') THEN format('%s is not a table, so it is not watched', s.relation)
            WHEN NOT s.has_primary_key
                THEN format('%s has no primary key, so it is not watched: add one, then: %s', s.relation,
                            s.command)
            WHEN s.missing_required <> '{}'
                THEN format('%s lacks %s, so it is not watched: add what is missing, then: %s', s.relation,
                            array_to_string(s.missing_required, ', '), s.command)
            WHEN s.watched_channel <> s.channel
                THEN format('%s is watched on the channel %s and not on %s; this changes it: %s', s.relation,
                            s.watched_channel, s.channel, s.command)
            WHEN NOT s.is_watched
                THEN concat_ws(': ', s.relation || ' is not watched', s.failure, 'fix that, then run', s.command)
            WHEN s.missing_wanted <> '{}'
                THEN format('%s is watched without %s: add what is missing, then: %s', s.relation,
                            array_to_string(s.missing_wanted, ', '), s.full_command)
       END AS problem
  FROM (SELECT t.*, c.relkind, w.channel AS watched_channel,
               c.oid IS NOT NULL AS table_exists,
               c.oid IS NOT NULL AND c.oid = coalesce(t.created, 0) AS created_by_brain,
               brain.primary_key(c.oid) IS NOT NULL AS has_primary_key,
               ARRAY(SELECT r FROM unnest(t.required) r
                      WHERE brain.missing_columns(c.oid, ARRAY[r]) IS NOT NULL) AS missing_required,
               ARRAY(SELECT r FROM unnest(brain.system_columns(t, true)) r
                      WHERE r <> ALL (t.required)
                        AND (brain.missing_columns(c.oid, ARRAY[r]) IS NOT NULL OR r <> ALL (w.columns)))
                   AS missing_wanted,
               coalesce(w.channel = t.channel, false) AS is_watched,
               format('brain watch %s --channel %s --columns %s', t.relation, t.channel,
                      array_to_string(brain.system_columns(t, false), ',')) AS command,
               format('brain watch %s --channel %s --columns %s', t.relation, t.channel,
                      array_to_string(brain.system_columns(t, true), ',')) AS full_command
          FROM brain.system_tables t
          LEFT JOIN LATERAL (SELECT brain.relation_of(t.relation) AS oid OFFSET 0) named ON true
          LEFT JOIN pg_class c ON c.oid = named.oid
          LEFT JOIN brain.watched w ON w.relation = c.oid) s;

-- Declares a table of a system. If there is no table of that name, the definition creates it: with its
-- triggers, indexes and first rows. If there is one, nothing of it is altered; brain.watch adds its
-- triggers, unless the table is watched already. To be called with the rights of the tables' owner.
-- substitutes, document, in_document: what is watched in place of wanted columns that the table lacks.
CREATE OR REPLACE FUNCTION brain.adopt_table(schema text, relation text, channel text, required text[],
                                             wanted text[], definition text, unwatched text[] DEFAULT '{}',
                                             substitutes jsonb DEFAULT '{}', document text DEFAULT NULL,
                                             in_document text[] DEFAULT '{}')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    created regclass := (SELECT t.created FROM brain.system_tables t WHERE t.relation = adopt_table.relation);
    failure text;
    problem text;
BEGIN
    IF brain.relation_of(relation) IS NULL THEN
        BEGIN
            EXECUTE definition;
            created := brain.relation_of(relation);
            PERFORM brain.let_read('system ' || relation, ARRAY[created::oid], ARRAY(
                SELECT a.attname FROM pg_attribute a WHERE a.attrelid = created AND a.attnum > 0));
        EXCEPTION
            WHEN duplicate_object OR duplicate_table OR invalid_schema_name THEN
                failure := SQLERRM;
            WHEN insufficient_privilege THEN
                failure := format('%s (an administrator can allow it with GRANT CREATE ON SCHEMA %I TO %I)',
                                  SQLERRM, split_part(relation, '.', 1), current_user);
        END;
    END IF;
    INSERT INTO brain.system_tables AS t
    VALUES (relation, schema, channel, required, wanted, unwatched, created, failure, substitutes, document,
            in_document)
    ON CONFLICT ON CONSTRAINT system_tables_pkey DO UPDATE
       SET schema = excluded.schema, channel = excluded.channel, required = excluded.required,
           wanted = excluded.wanted, unwatched = excluded.unwatched, created = excluded.created,
           failure = excluded.failure, substitutes = excluded.substitutes, document = excluded.document,
           in_document = excluded.in_document;
    BEGIN
        PERFORM brain.watch(s.relation::regclass, s.channel, brain.system_columns(t, false))
           FROM brain.system_table_status s JOIN brain.system_tables t USING (relation)
          WHERE s.relation = adopt_table.relation AND s.table_exists AND s.has_primary_key
            AND s.missing_required = '{}'
            AND NOT EXISTS (SELECT FROM brain.watched w WHERE w.relation = s.relation::regclass);
    EXCEPTION WHEN OTHERS THEN
        UPDATE brain.system_tables t SET failure = SQLERRM WHERE t.relation = adopt_table.relation;
    END;
    SELECT s.problem INTO problem FROM brain.system_table_status s WHERE s.relation = adopt_table.relation;
    IF problem IS NOT NULL THEN
        RAISE WARNING '%', problem;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.adopt_table FROM PUBLIC;

-- A trigger function of tables that a system created: sets updated_at if the row has changed and the writer
-- has not set it.
CREATE OR REPLACE FUNCTION brain.set_updated_at() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at AND NEW *<> OLD THEN
        NEW.updated_at := now();
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION brain.set_updated_at FROM PUBLIC;

-- The feeds that systems declare.
CREATE TABLE IF NOT EXISTS brain.system_feeds (
    name       text  PRIMARY KEY,
    schema     text  NOT NULL,    -- the schema that declares it
    definition jsonb,             -- its row of brain.feeds as it was defined last
    problem    text               -- why it is not defined as declared, with the way out
);

-- Declares a feed of a system, with the arguments of brain.define_feed. A feed that the operator has
-- defined, replaced or dropped stays as it is, and so does one with tables that are not watched.
CREATE OR REPLACE FUNCTION brain.adopt_feed(schema text, name text, query text, channels text[],
                                            takes_argument boolean DEFAULT false,
                                            argument_is_key boolean DEFAULT false,
                                            ignored_keys text[] DEFAULT '{}')
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    known jsonb := (SELECT s.definition FROM brain.system_feeds s WHERE s.name = adopt_feed.name);
    former CONSTANT jsonb := (SELECT to_jsonb(f) - 'bound_query' FROM brain.feeds f WHERE f.name = adopt_feed.name);
    wanted CONSTANT jsonb := jsonb_build_object(
        'name', name, 'query', regexp_replace(query, '[\s;]+$', ''), 'channels', channels,
        'takes_argument', takes_argument, 'argument_is_key', argument_is_key, 'ignored_keys', ignored_keys,
        'argument_claim', NULL, 'row_security', 'refused');
    unwatched CONSTANT text := (
        SELECT string_agg(c, ', ') FROM unnest(channels) c
         WHERE c NOT IN (SELECT s.channel FROM brain.system_table_status s WHERE s.is_watched));
    problem text;
BEGIN
    IF former IS DISTINCT FROM known OR wanted = known THEN
        NULL;  -- the operator's, or as declared
    ELSIF unwatched IS NOT NULL THEN
        problem := format('the feed %s is not defined, because no table is watched on %s: when one is, run: '
                          'brain migrate', name, unwatched);
    ELSE
        BEGIN
            PERFORM brain.define_feed(name, query, channels, takes_argument, argument_is_key, ignored_keys);
            known := wanted;
        EXCEPTION WHEN OTHERS THEN
            problem := format('the feed %s is not defined: %s: fix that, then run: brain migrate', name, SQLERRM);
        END;
    END IF;
    INSERT INTO brain.system_feeds AS s VALUES (name, schema, known, problem)
    ON CONFLICT ON CONSTRAINT system_feeds_pkey DO UPDATE
       SET schema = excluded.schema, definition = excluded.definition, problem = excluded.problem;
    IF problem IS NOT NULL THEN
        RAISE WARNING '%', problem;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.adopt_feed FROM PUBLIC;

-- What is missing of the declared tables and feeds, each with the way out.
CREATE OR REPLACE VIEW brain.system_problems AS
SELECT schema, relation AS name, problem FROM brain.system_table_status WHERE problem IS NOT NULL
 UNION ALL
SELECT schema, name, problem FROM brain.system_feeds WHERE problem IS NOT NULL;
