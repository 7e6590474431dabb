-- What appends an event to the log and notifies parked nodes.

SET LOCAL ROLE brain_owner;

-- Whether NOTIFY is needed by what holds the lock of parked nodes, of which others wait for it. That is looked up once
-- in a transaction, as any role may hold thousands of locks. If the queue of notifications is half full, which any role
-- can bring about, nodes find the change when they poll: a full one would fail the writer.
CREATE OR REPLACE FUNCTION brain.node_is_waited_for() RETURNS boolean LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    -- A node that parks later waits for this transaction.
    IF current_setting('brain.looked_in', true) = pg_current_xact_id()::text THEN
        RETURN false;
    END IF;
    PERFORM set_config('brain.looked_in', pg_current_xact_id()::text, true);
    RETURN EXISTS (SELECT FROM pg_locks
                    WHERE locktype = 'advisory' AND classid = 5221 AND objid = 2 AND objsubid = 2
                      AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
                      AND mode = 'ShareLock' AND granted)
       AND coalesce(current_setting('brain.notify', true), '') <> 'off'
       AND pg_notification_queue_usage() < 0.5;
END $$;
REVOKE ALL ON FUNCTION brain.node_is_waited_for FROM PUBLIC;

-- The expression for "NOTIFY is needed". A parked node holds the advisory lock in shared mode. A writer
-- that gets the lock alone knows that no node is parked and leaves out NOTIFY, which serialises commits.
-- If not even the shared lock is free, another writer holds it exclusively for its own check: no node is
-- parked. Or somebody waits for it, which any role can do, and the holders are to be looked up. To be
-- evaluated after the event has been written: a node that parks waits for all transactions that have an id by
-- then. A role with transactions that are prepared for two-phase commit, which NOTIFY
-- forbids, sets brain.notify to off; nodes then find its changes when they poll.
CREATE OR REPLACE FUNCTION brain.node_is_parked() RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT '(CASE WHEN pg_catalog.pg_try_advisory_lock(5221, 2)'
           ' THEN NOT pg_catalog.pg_advisory_unlock(5221, 2)'
           ' WHEN pg_catalog.pg_try_advisory_lock_shared(5221, 2)'
           ' THEN pg_catalog.pg_advisory_unlock_shared(5221, 2)'
           ' AND coalesce(pg_catalog.current_setting(''brain.notify'', true), '''')'
           ' OPERATOR(pg_catalog.<>) ''off'''
           ' AND pg_catalog.pg_notification_queue_usage() OPERATOR(pg_catalog.<) 0.5::pg_catalog.float8'
           ' ELSE brain.node_is_waited_for() END)'
$$;
REVOKE ALL ON FUNCTION brain.node_is_parked FROM PUBLIC;

-- The statements that insert the event with the id `event_id` into its slot, built from expressions. They
-- are text because a function call costs a writer half as much as the insertion. Row changes have no
-- recipient, and seldom omitted columns: what is left out costs their writers nothing.
CREATE OR REPLACE FUNCTION brain.insert_statements(channel text, type text, operation text, key text,
                                                   data text, old text, recipient text DEFAULT NULL,
                                                   omitted text DEFAULT NULL, rule_values text DEFAULT NULL,
                                                   old_rule_values text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT string_agg(format($insert$%s (event_id >> 36) & 3 = %s THEN
            INSERT INTO brain.events_%s
                (transaction_id, id, at, channel, type, operation, key, data, old%s)
            VALUES (pg_current_xact_id(), event_id, clock_timestamp(), %s, %s, %s, %s, %s, %s%s);
        $insert$,
        CASE slot WHEN 0 THEN 'IF' ELSE 'ELSIF' END, slot, slot,
        more.names, channel, type, operation, key, data, old, more.expressions), '' ORDER BY slot) || 'END IF'
      FROM generate_series(0, 3) slot,
           (SELECT string_agg(', ' || m.name, '' ORDER BY number) AS names,
                   string_agg(', ' || m.expression, '' ORDER BY number) AS expressions
              FROM unnest(ARRAY['recipient', 'omitted', 'rule_values', 'old_rule_values'],
                          ARRAY[recipient, omitted, rule_values, old_rule_values])
                   WITH ORDINALITY m (name, expression, number)
             WHERE m.expression IS NOT NULL) more
$$;
REVOKE ALL ON FUNCTION brain.insert_statements FROM PUBLIC;

-- Appends one event.
DO $write$
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.append(
    channel text, type text, operation "char", key text, data text, old text, recipient text DEFAULT NULL,
    omitted text[] DEFAULT NULL, rule_values text DEFAULT NULL, old_rule_values text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $append$
DECLARE
    event_id CONSTANT bigint := nextval('brain.event_id');
BEGIN
    %s;
    IF %s THEN
        PERFORM pg_notify('brain', '');
    END IF;
END $append$;
REVOKE ALL ON FUNCTION brain.append FROM PUBLIC$function$,
        brain.insert_statements('channel', 'type', 'operation', 'key', 'data', 'old', 'recipient', 'omitted',
                                'rule_values', 'old_rule_values'),
        brain.node_is_parked());
END $write$;

-- Has the clients of a channel load its state again, because what happened to it is not in the log: once in a
-- transaction, after which they read all that it wrote. brain.resets has the last reset of each channel, as
-- "orders" 17. Any role can set it: so it is looked up in the log, in its slot.
DO $write$
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.append_reset(channel text, reason text) RETURNS void LANGUAGE plpgsql
-- A plan may be made while the log is still small.
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $reset$
DECLARE
    name CONSTANT text := E'\n' || to_json(channel)::text || ' ';
    done CONSTANT text := coalesce(current_setting('brain.resets', true), '');
    former CONSTANT text := split_part(split_part(done, name, 2), E'\n', 1);
    event_id CONSTANT bigint := CASE WHEN former ~ '^[0-9]{1,18}$' THEN former END;
BEGIN
    IF event_id IS NOT NULL THEN
        %s;
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    PERFORM brain.append(channel, NULL, 'R', NULL, to_json(reason)::text, NULL);
    PERFORM set_config('brain.resets', name || currval('brain.event_id') || done, true);
END $reset$;
REVOKE ALL ON FUNCTION brain.append_reset FROM PUBLIC;$function$, (
        SELECT string_agg(format($check$%s (event_id >> 36) & 3 = %s THEN
            PERFORM FROM brain.events_%s e
              WHERE e.transaction_id = pg_current_xact_id() AND e.id = event_id AND e.operation = 'R'
                AND e.channel = append_reset.channel;
        $check$, CASE slot WHEN 0 THEN 'IF' ELSE 'ELSIF' END, slot, slot), '' ORDER BY slot) || 'END IF'
          FROM generate_series(0, 3) slot));
END $write$;

-- Publishes a message on a channel, to every subscriber or to one user. On a channel with row rules, a message
-- without a recipient reaches those clients alone that the rules do not restrict. A role that is not a member of
-- brain_owner needs GRANT USAGE ON SCHEMA brain and GRANT EXECUTE ON FUNCTION brain.publish. Names that
-- begin with "brain." are those of Brain's own channels.
CREATE OR REPLACE FUNCTION brain.publish(channel text, type text, data jsonb DEFAULT '{}',
                                         recipient text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    content CONSTANT text := coalesce(data::text, 'null');
BEGIN
    IF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'a message needs a channel' USING ERRCODE = 'invalid_parameter_value';
    ELSIF greatest(length(channel), length(type)) > 255 THEN
        RAISE EXCEPTION 'the channel and the type of a message have at most 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF starts_with(channel, 'brain.') THEN
        RAISE EXCEPTION 'the channel % is Brain''s own', channel USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message needs a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(recipient) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'the recipient of a message is a user; the user name must have 1 to 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(content) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', octet_length(content)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append(channel, type, 'P', NULL, content, NULL, recipient, rule_values => (
        SELECT format('{"" : %s}', w.rule_number) FROM brain.watched w
         WHERE w.channel = publish.channel AND w.rules <> '{}' AND recipient IS NULL));
END $$;
REVOKE ALL ON FUNCTION brain.publish FROM PUBLIC;
