-- The rows of a watched table as they are, and the place in the log from which they change.

SET LOCAL ROLE brain_owner;

-- Cuts a tick at the snapshot of another transaction, so that what that one reads and what follows
-- this tick join without a seam. To be called in a transaction that has called brain.tick(), and
-- with a snapshot that was taken after that and before this.
CREATE FUNCTION brain.tick_at(snapshot pg_snapshot, OUT id bigint, OUT nonce bigint) LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    INSERT INTO brain.ticks (id, snapshot) SELECT max(t.id) + 1, $1 FROM brain.ticks t
    RETURNING id, nonce
$$;

-- The watched columns of every row; nothing if no table is watched on the channel. With the reader's
-- rights.
CREATE FUNCTION brain.rows(channel text) RETURNS SETOF jsonb LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    watched brain.watched;
BEGIN
    SELECT w.* INTO watched FROM brain.watched w WHERE w.channel = rows.channel;
    IF FOUND THEN
        RETURN QUERY EXECUTE brain.selection(watched);
    END IF;
END $$;
