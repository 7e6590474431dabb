-- The log: every message that Brain sends is a row of brain.events, written in the transaction that
-- makes the change. Ids are drawn in one order and committed in another, so readers do not read by id
-- but in batches: a tick stores an MVCC snapshot under a dense number, and batch t is what is visible
-- in snapshot t and not in snapshot t-1, in id order. docs/design.md weighs the alternatives.
--
-- Locks: brain.events SHARE UPDATE EXCLUSIVE

SET LOCAL ROLE brain_owner;

-- CACHE must stay 1: an id is drawn while the row is locked, so the ids of one row follow its changes.
-- Bits 36 and 37 of an id say which slot the event is in. So writers find the slot without looking into a
-- table, and brain.rotate_slot moves all of them by setting the sequence.
CREATE SEQUENCE IF NOT EXISTS brain.event_id CACHE 1;

CREATE TABLE IF NOT EXISTS brain.events (
    transaction_id xid8        NOT NULL,
    id             bigint      NOT NULL,
    at             timestamptz NOT NULL,
    channel        text        NOT NULL,
    operation      "char"      NOT NULL,
    key            text,                  -- [primary key ...]; null for T, P and R
    data           text,                  -- the watched columns; null for D and T
    old            text,                  -- U and D: the watched columns as they were before
    type           text,                  -- the message's type; null: the wire format derives one
    recipient      text,
    omitted        text[],                -- the watched columns that are too large or cannot be shown
    rule_values     text,                 -- the columns of the channel's row rules: they decide who may see
    old_rule_values text                  -- the event, and are sent to nobody; null where there are no rules
);
COMMENT ON COLUMN brain.events.operation IS
    'I(nsert), U(pdate), D(elete), T(runcate), P(ublish), R(eset: what happened is not in the log)';
COMMENT ON COLUMN brain.events.data IS
    'JSON as PostgreSQL''s json functions write it; text, so that nothing is rounded or refused';
COMMENT ON COLUMN brain.events.recipient IS
    'the only user who receives the message; null: every subscriber; the empty text: no client';

-- Large texts are not compressed: that would take a writer several times as long as writing them. The
-- slots inherit it.
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'brain.events'::regclass
                  AND attname IN ('data', 'old') AND attstorage <> 'e') THEN
        ALTER TABLE brain.events ALTER data SET STORAGE EXTERNAL, ALTER old SET STORAGE EXTERNAL;
    END IF;
END $$;

-- Four slots, written in rotation, so that old events leave by TRUNCATE. Child tables instead of
-- partitions: writers name the child, which saves the routing of rows.
CREATE TABLE IF NOT EXISTS brain.events_0 () INHERITS (brain.events);
CREATE TABLE IF NOT EXISTS brain.events_1 () INHERITS (brain.events);
CREATE TABLE IF NOT EXISTS brain.events_2 () INHERITS (brain.events);
CREATE TABLE IF NOT EXISTS brain.events_3 () INHERITS (brain.events);

-- The id is in the index so that a transaction of a million rows can be read page by page in order.
-- CREATE INDEX IF NOT EXISTS would wait for open transactions that have written, and have other writers
-- wait behind it, even where the index exists.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['events', 'events_0', 'events_1', 'events_2', 'events_3'] LOOP
        IF to_regclass(format('brain.%s_transaction_id_id_idx', name)) IS NULL THEN
            EXECUTE format('CREATE INDEX %1$s_transaction_id_id_idx ON brain.%1$s (transaction_id, id)', name);
        END IF;
    END LOOP;
END $$;

CREATE TABLE IF NOT EXISTS brain.ticks (
    id       bigint      PRIMARY KEY,  -- dense: the last one plus one, never from a sequence
    nonce    bigint      NOT NULL DEFAULT (random() * 9007199254740991)::bigint,  -- names this history
    snapshot pg_snapshot NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brain.ticks (id, snapshot)
SELECT 0, pg_current_snapshot() WHERE NOT EXISTS (SELECT FROM brain.ticks);

-- Locks that serialise ticks and trimming. They are tables because any role may take an advisory lock and keep it.
-- They are locked in the weakest mode that conflicts with itself: to parse a query of a table is to lock it, up to the
-- mode of a writer, without a right on the table. They never have rows.
CREATE TABLE IF NOT EXISTS brain.tick_lock ();
CREATE TABLE IF NOT EXISTS brain.trim_lock ();

-- The server that the log was written on. Transaction ids of another server mean nothing here: events
-- written under ids that were used over there would look as if they had been sent already.
CREATE TABLE IF NOT EXISTS brain.origin (
    server     bigint      NOT NULL,  -- its system identifier, which a standby shares
    started_at timestamptz NOT NULL   -- the server's start when that was looked up last, which reads a file
);
INSERT INTO brain.origin
SELECT system_identifier, pg_postmaster_start_time() FROM pg_control_system()
 WHERE NOT EXISTS (SELECT FROM brain.origin);

-- Since when events are written to the present slot. A block is 2^36 ids.
CREATE TABLE IF NOT EXISTS brain.current_block (
    number bigint      NOT NULL,
    since  timestamptz NOT NULL DEFAULT clock_timestamp()
);
INSERT INTO brain.current_block (number) SELECT 0 WHERE NOT EXISTS (SELECT FROM brain.current_block);
