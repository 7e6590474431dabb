-- Several processes may serve the changes of one database, on one port or on many machines. Each says
-- here how many clients it has, so that any of them can say how many there are.

SET LOCAL ROLE brain_owner;

-- Not logged: after a crash every process says it anew. On half of each page there is room for the next
-- version of its rows, which then needs no index entry, and the page is cleaned up in passing.
CREATE UNLOGGED TABLE brain.nodes (
    id      uuid        PRIMARY KEY,  -- drawn by the process
    name    text        NOT NULL,     -- its host, and its process id there
    clients integer     NOT NULL,     -- connected to it
    seen_at timestamptz NOT NULL      -- when it said so, by clock_timestamp()
) WITH (fillfactor = 50);

-- Whether a process that was seen at that time still serves. A time to come is one from before the
-- clock was set back.
CREATE FUNCTION brain.is_recent(seen_at timestamptz) RETURNS boolean LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT seen_at BETWEEN clock_timestamp() - interval '5 seconds'
                       AND clock_timestamp() + interval '5 seconds'
$$;

-- How many clients all other processes have.
CREATE FUNCTION brain.clients_elsewhere(node uuid) RETURNS bigint LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(n.clients), 0) FROM brain.nodes n
     WHERE n.id <> node AND brain.is_recent(n.seen_at)
$$;

-- Says how many clients a process has, and returns how many the others have. Whoever was not seen for
-- a while is forgotten; a row that somebody else is working on is passed over, so that nobody waits
-- for anybody who waits.
CREATE FUNCTION brain.beat(node uuid, name text, clients integer) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO brain.nodes VALUES (node, name, clients, clock_timestamp())
    ON CONFLICT ON CONSTRAINT nodes_pkey DO UPDATE
       SET clients = excluded.clients, seen_at = excluded.seen_at;
    DELETE FROM brain.nodes d
     WHERE d.id IN (SELECT n.id FROM brain.nodes n WHERE NOT brain.is_recent(n.seen_at)
                       FOR UPDATE SKIP LOCKED);
    RETURN brain.clients_elsewhere(node);
END $$;

-- Says that a process serves no more.
CREATE FUNCTION brain.leave(node uuid) RETURNS void LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    DELETE FROM brain.nodes n WHERE n.id = node
$$;
