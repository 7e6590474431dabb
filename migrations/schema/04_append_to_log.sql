-- What appends an event to the log and notifies parked nodes.

SET LOCAL ROLE brain_owner;

-- The statement that inserts one event, built from expressions. It is text because a function call, or
-- an expression of its own, costs a writer half as much as the insertion. Row changes have no recipient:
-- what is left out costs their writers nothing.
CREATE OR REPLACE FUNCTION brain.insert_statement(channel text, type text, operation text, key text,
                                                  data text, old text, recipient text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($insert$INSERT INTO brain.events_%s
            (transaction_id, id, at, channel, type, operation, key, data, old%s)
        VALUES (pg_catalog.pg_current_xact_id(), pg_catalog.nextval('brain.event_id'),
                pg_catalog.clock_timestamp(), %s, %s, %s, %s, %s, %s%s)$insert$,
        number, CASE WHEN recipient IS NOT NULL THEN ', recipient' END,
        channel, type, operation, key, data, old, ', ' || recipient)
      FROM brain.current_slot
$$;
REVOKE ALL ON FUNCTION brain.insert_statement FROM PUBLIC;

-- The expression for "NOTIFY is needed". A parked node holds the advisory lock in shared mode. A writer
-- that gets the lock alone knows that no node is parked and leaves out NOTIFY, which serialises commits.
-- If not even the shared lock is free, another writer holds it exclusively for its own check: no node is
-- parked. To be evaluated after the event has been written: a node that parks waits for all transactions
-- that have an id by then. A role with transactions that are prepared for two-phase commit, which NOTIFY
-- forbids, sets brain.notify to off; nodes then find its changes when they poll.
CREATE OR REPLACE FUNCTION brain.node_is_parked() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '(CASE WHEN pg_catalog.pg_try_advisory_lock(5221, 2)'
           ' THEN NOT pg_catalog.pg_advisory_unlock(5221, 2)'
           ' WHEN pg_catalog.pg_try_advisory_lock_shared(5221, 2)'
           ' THEN pg_catalog.pg_advisory_unlock_shared(5221, 2)'
           ' AND coalesce(pg_catalog.current_setting(''brain.notify'', true), '''')'
           ' OPERATOR(pg_catalog.<>) ''off'' ELSE false END)'
$$;
REVOKE ALL ON FUNCTION brain.node_is_parked FROM PUBLIC;

-- Generates the function that appends one event. It runs with the rights of brain_owner under the
-- search_path of the writer: hence the qualified names in everything that is generated.
CREATE OR REPLACE FUNCTION brain.write_append() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.append(
    channel text, type text, operation "char", key jsonb, data jsonb, old jsonb, recipient text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $append$
BEGIN
    %s;
    IF %s THEN
        PERFORM pg_catalog.pg_notify('brain', '');
    END IF;
END $append$;
ALTER FUNCTION brain.append OWNER TO brain_owner;
REVOKE ALL ON FUNCTION brain.append FROM PUBLIC$function$,
        brain.insert_statement('channel', 'type', 'operation', 'key', 'data', 'old', 'recipient'),
        brain.node_is_parked());
END $write$;
REVOKE ALL ON FUNCTION brain.write_append FROM PUBLIC;

-- Publishes a message on a channel, to every subscriber or to one user. A role that is not a member of
-- brain_owner needs GRANT USAGE ON SCHEMA brain and GRANT EXECUTE ON FUNCTION brain.publish. Names that
-- begin with "brain." are those of Brain's own channels.
CREATE OR REPLACE FUNCTION brain.publish(channel text, type text, data jsonb DEFAULT '{}',
                                         recipient text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'a message needs a channel' USING ERRCODE = 'invalid_parameter_value';
    ELSIF starts_with(channel, 'brain.') THEN
        RAISE EXCEPTION 'the channel % is Brain''s own', channel USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message needs a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(recipient) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'the recipient of a message is a user; the user name must have 1 to 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF pg_column_size(data) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', pg_column_size(data)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append(channel, type, 'P', NULL, coalesce(data, 'null'), NULL, recipient);
END $$;
REVOKE ALL ON FUNCTION brain.publish FROM PUBLIC;
