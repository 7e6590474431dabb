-- Row rules: which rows of a watched table the claims of a client let it see. brain.restrict sets them; events carry
-- the values that they compare, and queries get a condition.

SET LOCAL ROLE brain_owner;

-- Numbers the row rules: an event has that of the rules by which it is decided who may see it. Clients whose
-- access was decided by former rules do not get it.
CREATE SEQUENCE IF NOT EXISTS brain.rule_number;

-- The types that row rules can compare, beside enums: those of which equal values have equal JSON, and different ones
-- different JSON, whatever the collation.
CREATE OR REPLACE FUNCTION brain.compared_types() RETURNS oid[] LANGUAGE sql IMMUTABLE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT '{int2,int4,int8,numeric,text,varchar,uuid,bool,date}'::regtype[]::oid[]
$$;
REVOKE ALL ON FUNCTION brain.compared_types FROM PUBLIC;

-- What is wrong with row rules, null if nothing is.
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
                 AND t.typtype <> 'e' AND t.oid <> ALL (brain.compared_types())
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
    PERFORM brain.lock_writers(watched);
    UPDATE brain.watched w
       SET rules = restrict.rules, exempt = restrict.exempt, rule_number = nextval('brain.rule_number'),
           attributes = brain.attributes(restrict.relation, w.key_columns || w.columns
                                                   || ARRAY(SELECT jsonb_object_keys(restrict.rules)))
     WHERE w.id = watched.id RETURNING w.* INTO watched;
    PERFORM brain.write_capture(watched), brain.announce_watch(watched, true);
END $$;
REVOKE ALL ON FUNCTION brain.restrict FROM PUBLIC;

-- The JSON text of what a claim says for a column of a type, null if it says nothing that the type has. What the owner
-- of a type may have defined is not called: labels of enums are looked up, and other types are PostgreSQL's own. A date
-- is written like 2026-01-31: PostgreSQL would read "today", and cut off a time of day.
CREATE OR REPLACE FUNCTION brain.claim_text(claim jsonb, type oid) RETURNS text LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp SET datestyle = 'ISO, MDY' AS $$
DECLARE
    base CONSTANT oid := brain.base_type(type);
    said CONSTANT text := CASE WHEN jsonb_typeof(claim) IN ('string', 'number', 'boolean') THEN claim #>> '{}' END;
    text text;
BEGIN
    IF base = ANY (brain.compared_types()) THEN
        -- Without the modifier of the column: a cast to varchar(3) would make another value of it.
        EXECUTE format('SELECT to_json($1::%s)::text', base::regtype) INTO text USING said;
        RETURN CASE WHEN base <> 'date'::regtype OR text = to_json(said)::text THEN text END;
    END IF;
    RETURN (SELECT to_json(e.enumlabel)::text FROM pg_enum e WHERE e.enumtypid = base AND e.enumlabel = said);
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
