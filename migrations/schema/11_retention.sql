-- Retention: old events and ticks are removed.

SET LOCAL ROLE brain_owner;

-- Moves writers to the next slot if they have written to this one for the given time and the next one is
-- empty. It sets a sequence and runs no DDL, which an event trigger or a missing right could stop.
CREATE OR REPLACE FUNCTION brain.rotate_slot(age interval) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    block CONSTANT bigint := (SELECT last_value >> 36 FROM brain.event_id);
    is_due boolean;
BEGIN
    IF EXISTS (SELECT FROM brain.current_block c WHERE c.number <> block) THEN
        UPDATE brain.current_block SET number = block, since = clock_timestamp();
    ELSIF EXISTS (SELECT FROM brain.current_block c WHERE c.since <= clock_timestamp() - age) THEN
        EXECUTE format('SELECT EXISTS (SELECT FROM brain.events_%s) AND NOT EXISTS (SELECT FROM brain.events_%s)',
                       block & 3, (block + 1) & 3) INTO is_due;
        IF is_due THEN
            UPDATE brain.current_block SET number = block + 1, since = clock_timestamp();
            PERFORM setval('brain.event_id', (block + 1) << 36, false);
        END IF;
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.rotate_slot FROM PUBLIC;

-- Removes what is older than `keep`: the ticks before the last one of that age, and the events of every
-- slot that all lie before it. Returns how many slots were emptied. After half of that time writers move
-- to the next slot, if that is empty. A slot in which a transaction holds a lock is left for the next call:
-- a session that waits for a lock makes later ones wait behind it, and writers may have short timeouts.
CREATE OR REPLACE FUNCTION brain.trim(keep interval) RETURNS integer LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    kept bigint;
    oldest xid8;
    slot text;
    is_old boolean;
    emptied integer := 0;
BEGIN
    BEGIN
        LOCK TABLE brain.trim_lock IN SHARE UPDATE EXCLUSIVE MODE NOWAIT;
    EXCEPTION WHEN lock_not_available THEN
        RETURN 0;  -- another node is trimming
    END;
    PERFORM set_config('lock_timeout', '200ms', true);
    -- Each step by itself: one that fails is reported, and does not hold up the others.
    BEGIN
        PERFORM brain.rotate_slot(keep / 2);
    EXCEPTION WHEN OTHERS THEN
        RAISE WARNING 'writers cannot move to the next slot of the log: %', SQLERRM;
    END;
    BEGIN
        -- From the old end, which holds only ticks that are about to be removed.
        SELECT t.id - 1 INTO kept FROM brain.ticks t
         WHERE t.at >= clock_timestamp() - keep ORDER BY t.id LIMIT 1;
        kept := coalesce(kept, (SELECT max(t.id) FROM brain.ticks t));
        SELECT pg_snapshot_xmin(t.snapshot) INTO STRICT oldest FROM brain.ticks t WHERE t.id = kept;
        DELETE FROM brain.ticks t WHERE t.id < kept;
    EXCEPTION WHEN no_data_found THEN
        RETURN 0;
    WHEN OTHERS THEN
        -- The events have to stay, because the log still offers cursors at these ticks.
        RAISE WARNING 'old ticks cannot be removed from the log: %', SQLERRM;
        RETURN 0;
    END;
    FOREACH slot IN ARRAY ARRAY['events_0', 'events_1', 'events_2', 'events_3'] LOOP
        BEGIN
            -- A check before the lock, and another one when no writer is in the slot any more.
            EXECUTE format('SELECT EXISTS (SELECT FROM brain.%1$I)'
                           ' AND NOT EXISTS (SELECT FROM brain.%1$I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            CONTINUE WHEN NOT is_old;
            EXECUTE format('LOCK TABLE brain.%I IN ACCESS EXCLUSIVE MODE NOWAIT', slot);
            EXECUTE format('SELECT NOT EXISTS (SELECT FROM brain.%I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            IF is_old THEN
                EXECUTE format('TRUNCATE brain.%I', slot);
                emptied := emptied + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        WHEN OTHERS THEN
            RAISE WARNING 'brain.% cannot be emptied: %', slot, SQLERRM;
        END;
    END LOOP;
    RETURN emptied;
END $$;
REVOKE ALL ON FUNCTION brain.trim FROM PUBLIC;
