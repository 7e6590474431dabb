-- What others can define runs with the rights of brain_reader and no more. To plan and run a query of a table is to
-- run what its owner, or the owner of a type or a function, has defined: policies, casts, operators, views, and the
-- functions of indexes, which the planner evaluates. So no query of a user's table runs with the rights of Brain.
--
-- brain_reader may read the listed columns of watched tables, and the tables of feeds; it has no other right, and
-- cannot log in. SET ROLE would not do: a function that runs after it can RESET ROLE. In a function that is
-- SECURITY DEFINER it cannot. That function belongs to brain_reader, and so does its schema, which is what a restored
-- dump needs. docs/design.md weighs the alternatives.

RESET ROLE;

DO $$
BEGIN
    IF to_regnamespace('brain_reader') IS NULL THEN
        CREATE SCHEMA brain_reader AUTHORIZATION brain_reader;
    END IF;
END $$;

SET LOCAL ROLE brain_reader;

GRANT USAGE ON SCHEMA brain_reader TO brain_owner;

-- The results of a query of one text column, run as brain_reader: up to and with the row that makes them more than
-- so many bytes. $1 of the query is `argument`. The transaction is read only from then on, which cannot be undone:
-- so what runs here cannot change this function, which belongs to brain_reader. The caller has to roll back: what
-- else a query may leave behind (settings, cursors that are kept beyond the transaction) ends with that.
CREATE OR REPLACE FUNCTION brain_reader.run(query text, argument text DEFAULT NULL, most_bytes bigint DEFAULT NULL)
RETURNS SETOF text LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET extra_float_digits = 1 SET bytea_output = hex
SET datestyle = 'ISO, MDY' SET intervalstyle = postgres SET timezone = 'UTC' SET lc_monetary = 'C'
SET quote_all_identifiers = off AS $$
DECLARE
    value text;
    bytes bigint := 0;
BEGIN
    PERFORM set_config('transaction_read_only', 'on', true);
    FOR value IN EXECUTE query USING argument LOOP
        RETURN NEXT value;
        bytes := bytes + coalesce(octet_length(value), 0);
        EXIT WHEN bytes > most_bytes;
    END LOOP;
END $$;

REVOKE ALL ON FUNCTION brain_reader.run FROM PUBLIC;
GRANT EXECUTE ON FUNCTION brain_reader.run TO brain_owner;

RESET ROLE;

SET LOCAL ROLE brain_owner;

-- What the queries of snapshots and feeds call.
GRANT USAGE ON SCHEMA brain TO brain_reader;
GRANT EXECUTE ON FUNCTION brain.text_within, brain.careful_text, brain.object_of, brain.leave_out_largest,
    brain.repaired, brain.as_state, brain.json_of, brain.json_expression, brain.fields_of, brain.is_trusted,
    brain.base_type TO brain_reader;
