-- What a table lacks is named in the order in which it was asked for. It was in that of whatever plan
-- the server made, which is another one once it has looked at its catalog.

SET LOCAL ROLE brain_owner;

CREATE OR REPLACE FUNCTION brain.missing_columns(relation regclass, columns text[]) RETURNS text
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(coalesce(c.name, 'NULL'), ', ' ORDER BY c.number)
      FROM unnest(columns) WITH ORDINALITY c (name, number)
     WHERE NOT EXISTS (SELECT FROM pg_attribute a WHERE a.attrelid = relation
                        AND a.attname = c.name AND a.attnum > 0 AND NOT a.attisdropped)
$$;
