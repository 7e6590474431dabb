-- What all clients of channels are to be told, whatever they have subscribed to, is no message of one
-- channel that anybody may publish on.

SET LOCAL ROLE brain_owner;

-- Tells everybody who has connected for channels. For a role that is not a member of brain_owner:
-- GRANT USAGE ON SCHEMA brain, and EXECUTE ON FUNCTION brain.announce.
CREATE FUNCTION brain.announce(type text, data jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message has a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF pg_column_size(data) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', pg_column_size(data)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append('brain.everyone', type, 'P', NULL, coalesce(data, 'null'), NULL);
END $$;
