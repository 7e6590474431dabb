-- A message may be meant for one user alone. Who that is stands beside it in the log, where whoever
-- tells it has to see it.

SET LOCAL ROLE brain_owner;

ALTER TABLE brain.events ADD COLUMN audience text;
COMMENT ON COLUMN brain.events.audience IS
    'the user who alone is told; null: everybody on the channel; the empty text, which is no user: nobody';

DROP FUNCTION brain.insertion;

-- The statement that inserts one event, given as expressions. As text, because a function that is
-- called, and an expression on its own, costs a writer as much as half of the insertion. Changes of
-- rows are for everybody: what is not said costs their writers nothing.
CREATE FUNCTION brain.insertion(channel text, type text, operation text, key text, data text, old text,
                                audience text DEFAULT NULL)
RETURNS text LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT format($insert$INSERT INTO brain.events_%s
            (transaction_id, id, at, channel, type, operation, key, data, old%s)
        VALUES (pg_catalog.pg_current_xact_id(), pg_catalog.nextval('brain.event_id'),
                pg_catalog.clock_timestamp(), %s, %s, %s, %s, %s, %s%s)$insert$,
        number, CASE WHEN audience IS NOT NULL THEN ', audience' END,
        channel, type, operation, key, data, old, ', ' || audience)
      FROM brain.current_slot
$$;

-- Writes the function that appends one event, or writes it anew. It is called with the rights of
-- brain_owner, under whatever search_path the writer has: hence the qualified names in all that is
-- generated here.
CREATE OR REPLACE FUNCTION brain.write_append() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $write$
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.append(
    channel text, type text, operation "char", key jsonb, data jsonb, old jsonb, audience text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql AS $append$
BEGIN
    %s;
    IF %s THEN
        PERFORM pg_catalog.pg_notify('brain', '');
    END IF;
END $append$;
ALTER FUNCTION brain.append(text, text, "char", jsonb, jsonb, jsonb, text) OWNER TO brain_owner;
REVOKE ALL ON FUNCTION brain.append(text, text, "char", jsonb, jsonb, jsonb, text) FROM PUBLIC$function$,
        brain.insertion('channel', 'type', 'operation', 'key', 'data', 'old', 'audience'),
        brain.somebody_sleeps());
END $write$;
SELECT brain.write_append();
DROP FUNCTION brain.append(text, text, "char", jsonb, jsonb, jsonb);

-- Publishes a message, to everybody on the channel or to one user there. For a role that is not a
-- member of brain_owner: GRANT USAGE ON SCHEMA brain, and EXECUTE ON FUNCTION brain.publish. Channels
-- whose names begin with "brain." are Brain's own.
CREATE FUNCTION brain.publish(channel text, type text, data jsonb DEFAULT '{}', audience text DEFAULT NULL)
RETURNS void LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(channel, '') = '' THEN
        RAISE EXCEPTION 'a message is published on a channel' USING ERRCODE = 'invalid_parameter_value';
    ELSIF starts_with(channel, 'brain.') THEN
        RAISE EXCEPTION 'the channel % is Brain''s own', channel USING ERRCODE = 'invalid_parameter_value';
    ELSIF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message has a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(audience) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'the audience of a message is a user, whose name has 1 to 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF pg_column_size(data) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', pg_column_size(data)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append(channel, type, 'P', NULL, coalesce(data, 'null'), NULL, audience);
END $$;

-- Whoever might publish still may.
DO $$
DECLARE
    granted record;
BEGIN
    FOR granted IN
        SELECT CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(a.grantee)) END AS role,
               CASE WHEN a.is_grantable THEN 'WITH GRANT OPTION' END AS further
          FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a
         WHERE p.oid = 'brain.publish(text, text, jsonb)'::regprocedure AND a.grantee <> p.proowner
    LOOP
        EXECUTE format('GRANT EXECUTE ON FUNCTION brain.publish(text, text, jsonb, text) TO %s %s',
                       granted.role, granted.further);
    END LOOP;
END $$;
DROP FUNCTION brain.publish(text, text, jsonb);

DROP FUNCTION brain.read;

-- What follows the place (tick, after) in the history that `nonce` names: at most `most` events, up to
-- the end of the tick `last`, in order; and in the end a row without an id, for the place up to which
-- that is everything. Without such a row, the log does not hold what follows that place.
--
-- Messages to one user are left out unless they are asked for: a node from before there were any goes
-- on calling this, and would tell them to everybody.
--
-- A batch is what began after the former snapshot and is visible in this one, and what was open in
-- the former and is visible in this one.
CREATE FUNCTION brain.read(tick bigint, nonce bigint, after bigint, last bigint, most integer,
                           with_messages_to_one boolean DEFAULT false)
RETURNS TABLE (at_tick bigint, at_nonce bigint, id bigint, at timestamptz, channel text, type text,
               operation "char", key jsonb, data jsonb, old jsonb, audience text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- A plan may be made while the log is still small, and is run for every tick, whoever asks.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    at_end CONSTANT bigint := 9223372036854775807;
    place bigint := after;
    room integer := most;
    found_events integer;
    low xid8;
    high xid8;
    snapshot pg_snapshot;
    late xid8[];
BEGIN
    at_tick := tick;
    LOOP
        IF place = at_end THEN
            EXIT WHEN at_tick >= last;
            at_tick := at_tick + 1;
            place := 0;
        END IF;
        SELECT pg_snapshot_xmax(former.snapshot), pg_snapshot_xmax(t.snapshot), t.snapshot, t.nonce,
               ARRAY(SELECT open FROM pg_snapshot_xip(former.snapshot) open
                      WHERE pg_visible_in_snapshot(open, t.snapshot))
          INTO low, high, snapshot, at_nonce, late
          FROM brain.ticks t JOIN brain.ticks former ON former.id = t.id - 1 WHERE t.id = at_tick;
        IF NOT FOUND THEN
            RETURN;
        ELSIF place = 0 THEN
            RETURN QUERY
            SELECT at_tick, at_nonce, e.id, e.at, e.channel, e.type, e.operation, e.key, e.data, e.old,
                   e.audience
              FROM (SELECT b.* FROM brain.events b
                     WHERE b.transaction_id >= low AND b.transaction_id < high
                       AND pg_visible_in_snapshot(b.transaction_id, snapshot)
                    UNION ALL
                    SELECT l.* FROM brain.events l WHERE l.transaction_id = ANY (late)) e
             WHERE with_messages_to_one OR e.audience IS NULL
             ORDER BY e.id LIMIT room;
        ELSE
            -- The middle of a tick, which may be huge: the next ones of each of its transactions.
            RETURN QUERY
            WITH RECURSIVE began (transaction_id) AS (
                (SELECT e.transaction_id FROM brain.events e
                  WHERE e.transaction_id >= low AND e.transaction_id < high
                  ORDER BY e.transaction_id LIMIT 1)
                UNION ALL
                SELECT (SELECT e.transaction_id FROM brain.events e
                         WHERE e.transaction_id > b.transaction_id AND e.transaction_id < high
                         ORDER BY e.transaction_id LIMIT 1)
                  FROM began b WHERE b.transaction_id IS NOT NULL)
            SELECT at_tick, at_nonce, e.id, e.at, e.channel, e.type, e.operation, e.key, e.data, e.old,
                   e.audience
              FROM (SELECT b.transaction_id FROM began b
                     WHERE pg_visible_in_snapshot(b.transaction_id, snapshot)
                    UNION ALL
                    SELECT unnest(late)) t
             CROSS JOIN LATERAL (SELECT n.* FROM brain.events n
                                  WHERE n.transaction_id = t.transaction_id AND n.id > place
                                    AND (with_messages_to_one OR n.audience IS NULL)
                                  ORDER BY n.transaction_id, n.id LIMIT room) e
             ORDER BY e.id LIMIT room;
        END IF;
        GET DIAGNOSTICS found_events = ROW_COUNT;
        room := room - found_events;
        EXIT WHEN room = 0;
        place := at_end;
    END LOOP;
    -- Looked up after the read, by a statement of its own: TRUNCATE empties a slot under the eyes of
    -- older snapshots, and takes the ticks with it. Ticks leave from the old end, so if this one is
    -- there, all that were read are.
    SELECT reached.nonce INTO at_nonce
      FROM brain.ticks t JOIN brain.ticks reached ON reached.id = at_tick
     WHERE t.id = tick AND t.nonce = read.nonce
       AND (after = at_end OR EXISTS (SELECT FROM brain.ticks former WHERE former.id = tick - 1));
    IF FOUND THEN
        RETURN NEXT;
    END IF;
END $$;
