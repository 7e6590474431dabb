-- Ticks cut the log into batches, which are read in order.

SET LOCAL ROLE brain_owner;

-- Begins a new history. The log was restored into a server with lower transaction ids than the
-- log's own, so nothing in it can be compared any more. Every cursor that clients hold becomes invalid.
CREATE OR REPLACE FUNCTION brain.begin_history() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    last bigint := (SELECT max(id) FROM brain.ticks);
BEGIN
    TRUNCATE brain.events, brain.events_0, brain.events_1, brain.events_2, brain.events_3;
    DELETE FROM brain.ticks;
    INSERT INTO brain.ticks (id, snapshot) VALUES (last + 1, pg_current_snapshot());
END $$;
REVOKE ALL ON FUNCTION brain.begin_history FROM PUBLIC;

-- Begins a new history if the log was restored into another server, or into a state of this server in
-- which fewer transactions had begun.
CREATE OR REPLACE FUNCTION brain.check_history() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF EXISTS (SELECT FROM brain.origin o, pg_control_system() s WHERE o.server <> s.system_identifier)
       OR EXISTS (SELECT FROM brain.ticks t
                   WHERE pg_snapshot_xmax(t.snapshot) > pg_snapshot_xmax(pg_current_snapshot())) THEN
        PERFORM brain.begin_history();
    END IF;
    UPDATE brain.origin o SET server = s.system_identifier, started_at = pg_postmaster_start_time()
      FROM pg_control_system() s;
END $$;
REVOKE ALL ON FUNCTION brain.check_history FROM PUBLIC;

-- Cuts a tick if there is something new, and returns the newest one. Everything that was committed
-- before the call is in a committed tick up to the returned one. To be called at READ COMMITTED, with
-- synchronous_commit on: no event before the end of a tick that others see can be taken back by a crash.
CREATE OR REPLACE FUNCTION brain.tick(OUT id bigint, OUT nonce bigint) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET jit = off AS $$
BEGIN
    -- The call waits for the lock. One that gave up instead would look before the other has committed,
    -- find nothing and park.
    LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM brain.ticks t, brain.origin o
                WHERE t.id = (SELECT max(n.id) FROM brain.ticks n)
                  AND (pg_snapshot_xmax(t.snapshot) > pg_snapshot_xmax(pg_current_snapshot())
                       OR o.started_at <> pg_postmaster_start_time())) THEN
        PERFORM brain.check_history();
    END IF;
    -- One statement, so that the snapshot it stores is the one it looks with. The last condition
    -- steps over transactions that wrote nothing here, so that the next batch does not begin far back.
    INSERT INTO brain.ticks (id, snapshot)
    SELECT last.id + 1, pg_current_snapshot()
      FROM (SELECT t.id, t.snapshot, t.at FROM brain.ticks t ORDER BY t.id DESC LIMIT 1) last
     WHERE EXISTS (SELECT FROM brain.events e WHERE e.transaction_id >= pg_snapshot_xmax(last.snapshot))
        OR EXISTS (SELECT FROM brain.events e
                    WHERE e.transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(last.snapshot))))
        OR (last.at < clock_timestamp() - interval '5 seconds'
            AND pg_snapshot_xmax(pg_current_snapshot())::text::bigint
              > pg_snapshot_xmax(last.snapshot)::text::bigint + 1);
    SELECT t.id, t.nonce INTO id, nonce FROM brain.ticks t ORDER BY t.id DESC LIMIT 1;
END $$;
REVOKE ALL ON FUNCTION brain.tick FROM PUBLIC;

-- Cuts a tick at the snapshot of another transaction, so that what that one reads and what follows
-- this tick join without a seam. To be called in a transaction that has called brain.tick(), with a
-- snapshot that was taken after that and before this.
CREATE OR REPLACE FUNCTION brain.tick_at(snapshot pg_snapshot, OUT id bigint, OUT nonce bigint) LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO brain.ticks (id, snapshot) SELECT max(t.id) + 1, $1 FROM brain.ticks t
    RETURNING id, nonce
$$;
REVOKE ALL ON FUNCTION brain.tick_at FROM PUBLIC;

-- A text in which characters that have no equivalent in UTF-8, which clients get, are replaced by question
-- marks, with those of their neighbours that are not ASCII: up to 16, or a thousandth of a long text, in
-- which each part costs a subtransaction.
CREATE OR REPLACE FUNCTION brain.repaired(value text, part integer DEFAULT NULL) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    half integer;
BEGIN
    PERFORM convert_to(value, 'UTF8');
    RETURN value;
EXCEPTION WHEN OTHERS THEN
    half := length(value) / 2;
    part := coalesce(part, greatest(16, half / 500));
    RETURN CASE WHEN half < part THEN regexp_replace(value COLLATE "C", '[^ -~]', '?', 'g')
                ELSE brain.repaired(left(value, half), part) || brain.repaired(substr(value, half + 1), part) END;
END $$;
REVOKE ALL ON FUNCTION brain.repaired FROM PUBLIC;

-- Returns what follows the place (tick, after) in the history that `nonce` names, in order, up to the end
-- of the tick `last`: at most `most` events, and no further one once they have so many bytes; then one row
-- without a channel, with the place up to which that is everything, and the time of its tick. Without such
-- a row, the log does not hold what follows the place.
--
-- A batch is what began after the former snapshot and is visible in this one, and what was open in
-- the former and is visible in this one.
CREATE OR REPLACE FUNCTION brain.read(tick bigint, nonce bigint, after bigint, last bigint, most integer,
                                      bytes bigint)
RETURNS TABLE (at_tick bigint, at_nonce bigint, transaction_id xid8, id bigint, at timestamptz, channel text,
               type text, operation "char", key text, data text, old text, recipient text, omitted text[],
               rule_values text, old_rule_values text)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- A plan may be made while the log is still small, and is used for every tick of every node.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    at_end CONSTANT bigint := 9223372036854775807;
    place bigint := after;
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
            FOR transaction_id, id, at, channel, type, operation, key, data, old, recipient, omitted, rule_values,
                old_rule_values IN
                SELECT e.transaction_id, e.id, e.at, e.channel, e.type, e.operation, e.key, e.data, e.old,
                       e.recipient, e.omitted, e.rule_values, e.old_rule_values
                  FROM (SELECT b.* FROM brain.events b
                         WHERE b.transaction_id >= low AND b.transaction_id < high
                           AND pg_visible_in_snapshot(b.transaction_id, snapshot)
                        UNION ALL
                        SELECT l.* FROM brain.events l WHERE l.transaction_id = ANY (late)) e
                 ORDER BY e.id LIMIT most
            LOOP
                place := id;
                most := most - 1;
                -- Of a large text the length is in its header.
                bytes := bytes - coalesce(octet_length(data), 0) - coalesce(octet_length(old), 0)
                         - coalesce(octet_length(key), 0) - coalesce(pg_column_size(omitted), 0);
                RETURN NEXT;
                EXIT WHEN most = 0 OR bytes <= 0;
            END LOOP;
        ELSE
            -- The middle of a tick, which may be huge: the next events of each of its transactions.
            FOR transaction_id, id, at, channel, type, operation, key, data, old, recipient, omitted, rule_values,
                old_rule_values IN
                WITH RECURSIVE began (transaction_id) AS (
                    (SELECT e.transaction_id FROM brain.events e
                      WHERE e.transaction_id >= low AND e.transaction_id < high
                      ORDER BY e.transaction_id LIMIT 1)
                    UNION ALL
                    SELECT (SELECT e.transaction_id FROM brain.events e
                             WHERE e.transaction_id > b.transaction_id AND e.transaction_id < high
                             ORDER BY e.transaction_id LIMIT 1)
                      FROM began b WHERE b.transaction_id IS NOT NULL)
                SELECT e.transaction_id, e.id, e.at, e.channel, e.type, e.operation, e.key, e.data, e.old,
                       e.recipient, e.omitted, e.rule_values, e.old_rule_values
                  FROM (SELECT b.transaction_id FROM began b
                         WHERE pg_visible_in_snapshot(b.transaction_id, snapshot)
                        UNION ALL
                        SELECT unnest(late)) t
                 CROSS JOIN LATERAL (SELECT n.* FROM brain.events n
                                      WHERE n.transaction_id = t.transaction_id AND n.id > place
                                      ORDER BY n.transaction_id, n.id LIMIT most) e
                 ORDER BY e.id LIMIT most
            LOOP
                place := id;
                most := most - 1;
                -- Of a large text the length is in its header.
                bytes := bytes - coalesce(octet_length(data), 0) - coalesce(octet_length(old), 0)
                         - coalesce(octet_length(key), 0) - coalesce(pg_column_size(omitted), 0);
                RETURN NEXT;
                EXIT WHEN most = 0 OR bytes <= 0;
            END LOOP;
        END IF;
        EXIT WHEN most = 0 OR bytes <= 0;
        place := at_end;
    END LOOP;
    -- Looked up after the read, by a statement of its own: TRUNCATE empties a slot under the eyes of
    -- older snapshots, and takes the ticks with it. Ticks leave from the old end, so if this one is
    -- there, all that were read are.
    SELECT reached.nonce, reached.at INTO at_nonce, at
      FROM brain.ticks t JOIN brain.ticks reached ON reached.id = at_tick
     WHERE t.id = tick AND t.nonce = read.nonce
       AND (after = at_end OR EXISTS (SELECT FROM brain.ticks former WHERE former.id = tick - 1));
    IF FOUND THEN
        id := place;
        transaction_id := NULL;
        channel := NULL;
        key := NULL;
        data := NULL;
        old := NULL;
        RETURN NEXT;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.read FROM PUBLIC;

-- Cuts a tick if there is something new, and returns what follows the place (tick, after), as brain.read does: with
-- one call, and in few statements, since every node makes this call for every change.
--
-- A tick is committed without waiting for the disk if all that it lets pass is on the disk already: then a crash can
-- take back the tick, but no event. In the last row, `written` is the position in the WAL up to which it has to be on
-- the disk so that a crash takes back no tick up to the returned place; null: brain.flush() sees to that. `flushed` is
-- the position up to which it is on the disk.
DO $write$
DECLARE
    -- One statement, so that the snapshot that a tick stores is the one that it looks with. The position in the WAL is
    -- read behind that snapshot: it lies behind every commit that the snapshot shows.
    for_each CONSTANT text := $for$
        FOR seen, wal, at_tick, transaction_id, id, at, channel, type, operation, key, data, old, recipient, omitted,
            rule_values, old_rule_values IN
            SELECT (SELECT pg_current_snapshot()), (SELECT pg_current_wal_insert_lsn()),
                   last.id + (NOT coalesce(pg_visible_in_snapshot(e.transaction_id, last.snapshot), true))::integer,
                   e.transaction_id, e.id, e.at, e.channel, e.type, e.operation, e.key, e.data, e.old, e.recipient,
                   e.omitted, e.rule_values, e.old_rule_values
              FROM (VALUES (0)) always
              LEFT JOIN (SELECT b.* FROM brain.events b WHERE b.transaction_id >= low %1$s) e ON true
             ORDER BY 3, e.id LIMIT most
        LOOP
            EXIT WHEN id IS NULL;
            IF at_tick > last.id AND NOT is_cut THEN
                INSERT INTO brain.ticks AS new (id, snapshot) VALUES (at_tick, seen)
                RETURNING new.nonce, new.at INTO at_nonce, cut_at;
                is_cut := true;
            END IF;
            place := id;
            most := most - 1;
            -- Of a large text the length is in its header.
            bytes := bytes - coalesce(octet_length(data), 0) - coalesce(octet_length(old), 0)
                     - coalesce(octet_length(key), 0) - coalesce(pg_column_size(omitted), 0);
            RETURN NEXT;
            EXIT WHEN most = 0 OR bytes <= 0;
        END LOOP;
    $for$;
BEGIN
    EXECUTE format($function$
CREATE OR REPLACE FUNCTION brain.newest(tick bigint, nonce bigint, after bigint, most integer, bytes bigint)
RETURNS TABLE (at_tick bigint, at_nonce bigint, transaction_id xid8, id bigint, at timestamptz, channel text,
               type text, operation "char", key text, data text, old text, recipient text, omitted text[],
               rule_values text, old_rule_values text, written bigint, flushed bigint)
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $newest$
DECLARE
    at_end CONSTANT bigint := 9223372036854775807;
    place bigint := after;
    former pg_snapshot;
    last record;
    ticks integer := 0;
    low xid8;
    seen pg_snapshot;
    wal pg_lsn;
    is_cut boolean := false;
    cut_at timestamptz;
BEGIN
    LOCK TABLE brain.tick_lock IN SHARE UPDATE EXCLUSIVE MODE;
    FOR last IN SELECT t.id, t.nonce, t.snapshot, t.at FROM brain.ticks t
                 WHERE t.id >= newest.tick ORDER BY t.id LIMIT 3 LOOP
        ticks := ticks + 1;
        IF last.id = newest.tick AND last.nonce = newest.nonce THEN
            former := last.snapshot;
        END IF;
    END LOOP;
    -- The usual case: the newest tick is the one that the reader knows, or one that another node has cut since.
    IF former IS NULL OR after < at_end OR ticks = 3
       OR pg_snapshot_xmax(last.snapshot) > pg_snapshot_xmax(pg_current_snapshot()) THEN
        FOR at_tick, at_nonce, transaction_id, id, at, channel, type, operation, key, data, old, recipient, omitted,
            rule_values, old_rule_values IN
            SELECT r.* FROM brain.tick() t, LATERAL brain.read(newest.tick, newest.nonce, after, t.id, most, bytes) r
        LOOP
            written := pg_current_wal_insert_lsn() - '0/0';
            flushed := pg_current_wal_flush_lsn() - '0/0';
            RETURN NEXT;
        END LOOP;
        RETURN;
    END IF;
    at_tick := last.id;
    at_nonce := last.nonce;
    low := pg_snapshot_xmax(former);
    IF pg_snapshot_xmin(former) = low THEN
        %1$s
    ELSE
        -- Transactions were open.
        %2$s
    END IF;
    IF most > 0 AND bytes > 0 THEN
        place := at_end;
        -- Steps over transactions that wrote nothing here, as brain.tick does.
        IF NOT is_cut AND last.at < clock_timestamp() - interval '5 seconds'
           AND pg_snapshot_xmax(seen)::text::bigint > pg_snapshot_xmax(last.snapshot)::text::bigint + 1 THEN
            INSERT INTO brain.ticks AS new (id, snapshot) VALUES (last.id + 1, seen)
            RETURNING new.id, new.nonce, new.at INTO at_tick, at_nonce, cut_at;
            is_cut := true;
        END IF;
    END IF;
    -- As brain.read does. What follows the newest tick stays.
    IF last.id > newest.tick AND NOT EXISTS (SELECT FROM brain.ticks t WHERE t.id = newest.tick) THEN
        RETURN;
    END IF;
    flushed := pg_current_wal_flush_lsn() - '0/0';
    IF NOT is_cut THEN
        written := wal - '0/0';
    ELSIF place = at_end AND wal - '0/0' <= flushed AND current_setting('synchronous_standby_names') = '' THEN
        PERFORM set_config('synchronous_commit', 'off', true);
    ELSE
        written := 0;
    END IF;
    id := place;
    at := CASE WHEN is_cut THEN cut_at ELSE last.at END;
    transaction_id := NULL;
    channel := NULL;
    key := NULL;
    data := NULL;
    old := NULL;
    RETURN NEXT;
END $newest$;
REVOKE ALL ON FUNCTION brain.newest FROM PUBLIC;$function$,
        format(for_each, ''),
        format(for_each, 'UNION ALL SELECT l.* FROM brain.events l'
                         ' WHERE l.transaction_id = ANY (ARRAY(SELECT pg_snapshot_xip(former)))'));
END $write$;

-- Has the disk take what was committed without waiting for it: a commit that has written something waits for all that
-- was written before.
CREATE OR REPLACE FUNCTION brain.flush() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn() THEN
        PERFORM pg_logical_emit_message(true, 'brain', '');
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.flush FROM PUBLIC;

-- Cuts a tick, and as many empty ones after it, and returns the last of them: so a node that was sent ticks which a
-- crash took back goes on behind their numbers.
CREATE OR REPLACE FUNCTION brain.skip_ticks(count bigint, OUT id bigint, OUT nonce bigint) LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    PERFORM brain.tick();
    INSERT INTO brain.ticks (id, snapshot)
    SELECT last.id + number, last.snapshot
      FROM (SELECT t.id, t.snapshot FROM brain.ticks t ORDER BY t.id DESC LIMIT 1) last,
           generate_series(1, count) number;
    SELECT t.id, t.nonce INTO id, nonce FROM brain.ticks t ORDER BY t.id DESC LIMIT 1;
END $$;
REVOKE ALL ON FUNCTION brain.skip_ticks FROM PUBLIC;

-- Of transactions, those that have events up to the id `before`, or after the id `after`.
CREATE OR REPLACE FUNCTION brain.split_transactions(transactions xid8[], before bigint, after bigint)
RETURNS SETOF xid8 LANGUAGE plpgsql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    one xid8;
BEGIN
    FOREACH one IN ARRAY transactions LOOP
        IF EXISTS (SELECT FROM brain.events e WHERE e.transaction_id = one AND e.id <= before)
           OR EXISTS (SELECT FROM brain.events e WHERE e.transaction_id = one AND e.id > after) THEN
            RETURN NEXT one;
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.split_transactions FROM PUBLIC;

-- What has become of transactions: 'unknown' (it is not of this server, or in its future), 'rolled back', 'open', or
-- 'committed'. For a committed one, `tick` is a tick that sees it, or -1 if it has no events, for which no tick is cut;
-- null means that there is no such tick yet.
CREATE OR REPLACE FUNCTION brain.transaction_states(transactions xid8[])
RETURNS TABLE (transaction_id xid8, state text, tick bigint) LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    FOREACH transaction_id IN ARRAY transactions LOOP
        tick := NULL;
        BEGIN
            -- Of a transaction that ended long ago it is not known how: it has been sent.
            state := CASE pg_xact_status(transaction_id) WHEN 'in progress' THEN 'open'
                          WHEN 'aborted' THEN 'rolled back' ELSE 'committed' END;
        EXCEPTION WHEN invalid_parameter_value THEN
            state := 'unknown';
        END;
        IF state = 'committed' THEN
            SELECT t.id INTO tick FROM brain.ticks t
             WHERE t.id = (SELECT max(n.id) FROM brain.ticks n)
               AND pg_visible_in_snapshot(transaction_states.transaction_id, t.snapshot);
            -- One statement, so that its events are visible if it is.
            IF tick IS NULL AND (
                SELECT pg_visible_in_snapshot(transaction_states.transaction_id, pg_current_snapshot())
                   AND NOT EXISTS (SELECT FROM brain.events e
                                    WHERE e.transaction_id = transaction_states.transaction_id)) THEN
                tick := -1;
            END IF;
        END IF;
        RETURN NEXT;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.transaction_states FROM PUBLIC;
