-- Messages that no row stands for: they go into the log like the changes of rows, in the transaction
-- of whoever publishes them, and are told if and when it commits.

SET LOCAL ROLE brain_owner;

-- Publishes a message. For a role that is not a member of brain_owner:
-- GRANT USAGE ON SCHEMA brain, and EXECUTE ON FUNCTION brain.publish.
CREATE FUNCTION brain.publish(channel text, type text, data jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'a message is published on a channel' USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message has a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF pg_column_size(data) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', pg_column_size(data)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append(channel, type, 'P', NULL, coalesce(data, 'null'), NULL);
END $$;
