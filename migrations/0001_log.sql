-- The log that everything is sent from. A change is written to brain.events in the transaction that
-- makes it. Ids are drawn in one order and committed in another, so the log is not read by id but in
-- batches: a tick stores an MVCC snapshot under a dense number, and batch t is what is visible in
-- snapshot t and not in snapshot t-1, in id order. docs/design.md weighs the alternatives.
--
-- Advisory locks, all of class 5221: 1 cuts ticks, 2 says that a node sleeps, 3 forgets, 4 migrates.

-- Trigger functions run with the rights of their owner. The owner is a role that nobody logs in as
-- and that owns nothing else.
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brain_owner') THEN
        CREATE ROLE brain_owner NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- made by the migration of another database of this server a moment ago
END $$;

DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'brain_owner', 'USAGE') THEN
        EXECUTE format('GRANT brain_owner TO %I', current_user);
    END IF;
END $$;

ALTER SCHEMA brain OWNER TO brain_owner;
ALTER TABLE brain.migrations OWNER TO brain_owner;
SET LOCAL ROLE brain_owner;
ALTER DEFAULT PRIVILEGES FOR ROLE brain_owner REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- CACHE must stay 1: an id is drawn while the row is locked, so the ids of one row follow its changes.
CREATE SEQUENCE brain.event_id CACHE 1;

CREATE TABLE brain.events (
    transaction_id xid8        NOT NULL,
    id             bigint      NOT NULL,
    at             timestamptz NOT NULL,
    channel        text        NOT NULL,
    operation      "char"      NOT NULL,  -- I(nsert), U(pdate), D(elete), T(runcate)
    key            jsonb,                 -- [primary key ...]; null for T
    data           jsonb,                 -- the watched columns; null for D and T, and where too large
    old            jsonb                  -- U: the former values of what changed; D: of all watched columns
);

-- Four slots taken in turn by the clock, so that old events leave by TRUNCATE. Children and not
-- partitions: writers name the child, which spares them the routing of rows.
CREATE TABLE brain.events_0 () INHERITS (brain.events);
CREATE TABLE brain.events_1 () INHERITS (brain.events);
CREATE TABLE brain.events_2 () INHERITS (brain.events);
CREATE TABLE brain.events_3 () INHERITS (brain.events);
CREATE INDEX ON brain.events_0 (transaction_id);
CREATE INDEX ON brain.events_1 (transaction_id);
CREATE INDEX ON brain.events_2 (transaction_id);
CREATE INDEX ON brain.events_3 (transaction_id);

CREATE TABLE brain.ticks (
    id       bigint      PRIMARY KEY,  -- dense: the last one plus one, never from a sequence
    nonce    bigint      NOT NULL DEFAULT (random() * 9007199254740991)::bigint,  -- names this history
    snapshot pg_snapshot NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brain.ticks (id, snapshot) VALUES (0, pg_current_snapshot());

-- Cuts a tick if there is something new, and returns the newest one. Whatever was committed before
-- the call is in a committed tick up to the returned one. To be called outside a transaction, at
-- READ COMMITTED, with synchronous_commit on: nothing is delivered that a crash could take back.
CREATE FUNCTION brain.tick(OUT id bigint, OUT nonce bigint) LANGUAGE plpgsql AS $$
BEGIN
    -- The blocking lock: whoever loses a try-lock looks before the winner has committed, finds
    -- nothing and goes to sleep.
    PERFORM pg_advisory_xact_lock(5221, 1);
    IF EXISTS (SELECT FROM brain.ticks t
                WHERE t.id = (SELECT max(n.id) FROM brain.ticks n)
                  AND pg_snapshot_xmax(t.snapshot) > pg_snapshot_xmax(pg_current_snapshot())) THEN
        PERFORM brain.begin_history();
    END IF;
    -- One statement, so that the snapshot it stores is the one it looks with. The last condition
    -- steps over transactions that wrote nothing here, lest the next batch begin far back.
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

-- The log was restored into a server whose transaction ids are lower than the log's own: nothing in
-- it can be compared any more. Every cursor handed out before becomes invalid.
CREATE FUNCTION brain.begin_history() RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    last bigint := (SELECT max(id) FROM brain.ticks);
BEGIN
    TRUNCATE brain.events, brain.events_0, brain.events_1, brain.events_2, brain.events_3;
    DELETE FROM brain.ticks;
    INSERT INTO brain.ticks (id, snapshot) VALUES (last + 1, pg_current_snapshot());
END $$;

-- At most `most` events of one batch after the event `after`, in id order. The first half finds what
-- began after the former snapshot, the second what was still open in it and is committed now.
CREATE FUNCTION brain.batch(tick bigint, after bigint, most integer)
RETURNS TABLE (id bigint, at timestamptz, channel text, operation "char", key jsonb, data jsonb, old jsonb)
LANGUAGE sql STABLE AS $$
    WITH cut AS MATERIALIZED (
        SELECT pg_snapshot_xmax(former.snapshot) AS low,
               pg_snapshot_xmax(this.snapshot) AS high,
               this.snapshot,
               ARRAY(SELECT open FROM pg_snapshot_xip(former.snapshot) open
                      WHERE pg_visible_in_snapshot(open, this.snapshot)) AS late
          FROM brain.ticks this JOIN brain.ticks former ON former.id = this.id - 1
         WHERE this.id = $1)
    SELECT b.id, b.at, b.channel, b.operation, b.key, b.data, b.old FROM (
        SELECT e.* FROM cut, brain.events e
         WHERE e.transaction_id >= (SELECT low FROM cut) AND e.transaction_id < (SELECT high FROM cut)
           AND pg_visible_in_snapshot(e.transaction_id, cut.snapshot)
        UNION ALL
        SELECT e.* FROM brain.events e WHERE e.transaction_id = ANY ((SELECT late FROM cut)::xid8[])) b
     WHERE b.id > $2
     ORDER BY b.id
     LIMIT $3
$$;

-- Forgets what is older than `keep`: the ticks before the last one of that age, and every slot whose
-- events all lie before it. Returns how many slots were emptied. A slot that a writer still holds is
-- left for the next time; nobody waits for this longer than the lock_timeout. With slots of twelve
-- hours, `keep` may be up to 36 hours: a slot has to be empty before its turn comes again.
CREATE FUNCTION brain.forget(keep interval) RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    kept bigint;
    oldest xid8;
    slot text;
    is_old boolean;
    emptied integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(5221, 3) THEN
        RETURN 0;  -- another node is at it
    END IF;
    -- From the old end, where only those lie that are about to go.
    SELECT t.id - 1 INTO kept FROM brain.ticks t
     WHERE t.at >= clock_timestamp() - keep ORDER BY t.id LIMIT 1;
    kept := coalesce(kept, (SELECT max(t.id) FROM brain.ticks t));
    SELECT pg_snapshot_xmin(t.snapshot) INTO oldest FROM brain.ticks t WHERE t.id = kept;
    IF NOT FOUND THEN
        RETURN 0;
    END IF;
    DELETE FROM brain.ticks t WHERE t.id < kept;
    PERFORM set_config('lock_timeout', '200ms', true);
    FOREACH slot IN ARRAY ARRAY['events_0', 'events_1', 'events_2', 'events_3'] LOOP
        BEGIN
            -- A look before the lock, and another one when no writer is in the slot any more.
            EXECUTE format('SELECT EXISTS (SELECT FROM brain.%1$I)'
                           ' AND NOT EXISTS (SELECT FROM brain.%1$I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            CONTINUE WHEN NOT is_old;
            EXECUTE format('LOCK TABLE brain.%I IN ACCESS EXCLUSIVE MODE', slot);
            EXECUTE format('SELECT NOT EXISTS (SELECT FROM brain.%I WHERE transaction_id >= $1)', slot)
               INTO is_old USING oldest;
            IF is_old THEN
                EXECUTE format('TRUNCATE brain.%I', slot);
                emptied := emptied + 1;
            END IF;
        EXCEPTION WHEN lock_not_available THEN
            NULL;
        END;
    END LOOP;
    RETURN emptied;
END $$;
