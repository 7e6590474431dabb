-- Who is connected to which process, so that any of them can say who is connected anywhere; and so
-- that a user is told to be offline when the last of his connections ends, wherever it was, even if
-- its process died without a word.
--
-- Locks are taken in one order: the row of the process that speaks, then the roll call, then those of
-- the dead that nobody else has, then the lock of presence. Each is held by one statement that asks
-- nobody for anything else, so nobody waits for long, and nobody for each other.

SET LOCAL ROLE brain_owner;

ALTER TABLE brain.nodes
    ADD COLUMN authenticated integer NOT NULL DEFAULT 0,     -- how many of its clients have a user
    ADD COLUMN channels      jsonb   NOT NULL DEFAULT '{}',  -- how many of them hear which
    ADD COLUMN news          bigint  NOT NULL DEFAULT 0;     -- the number of what it has said last
COMMENT ON COLUMN brain.nodes.seen_at IS
    'when it said so, by clock_timestamp(); -infinity: it is taken for dead, and being forgotten';

-- Not logged, like brain.nodes. Whoever writes or deletes rows of a process has its row there locked.
CREATE UNLOGGED TABLE brain.node_users (
    node    uuid NOT NULL,
    user_id text NOT NULL,  -- has a connection to it, or several
    PRIMARY KEY (node, user_id)
);
CREATE INDEX ON brain.node_users (user_id);
CREATE UNLOGGED TABLE brain.connections (
    node     uuid   NOT NULL,
    id       uuid   NOT NULL,
    channels text[] NOT NULL,
    PRIMARY KEY (node, id)
);

-- What was told last of each user, unless that was offline. Logged, since the events are: so a crash
-- leaves nobody online for good, and has nothing told twice. Only changed under the lock.
CREATE TABLE brain.presence (
    user_id text PRIMARY KEY,
    status  text NOT NULL CHECK (status IN ('online', 'away', 'busy'))
);
CREATE TABLE brain.presence_lock ();

-- Has no row after a crash. Then every process says anew whom it has; when there was time for that,
-- whoever has a presence and no process is offline.
CREATE UNLOGGED TABLE brain.roll_call (
    is_called boolean     PRIMARY KEY DEFAULT true CHECK (is_called),  -- so there is one row
    since     timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_over   boolean     NOT NULL DEFAULT false
);

CREATE FUNCTION brain.tell_presence(user_id text, status text) RETURNS void LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.append('presence', 'user_presence', 'P', NULL,
                        jsonb_build_object('userId', user_id, 'status', status), NULL)
$$;

-- Tells which of these users are offline now; all that have a presence, if there are none given. To
-- be called under the lock, when the connections that ended are gone from brain.node_users.
CREATE FUNCTION brain.tell_offline(users text[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    person text;
BEGIN
    users := coalesce(users, ARRAY(SELECT p.user_id FROM brain.presence p));
    FOR person IN
        DELETE FROM brain.presence p
         WHERE p.user_id IN (SELECT unnest(users))
           AND NOT EXISTS (SELECT FROM brain.node_users u WHERE u.user_id = p.user_id)
        RETURNING p.user_id
    LOOP
        PERFORM brain.tell_presence(person, 'offline');
    END LOOP;
END $$;

-- Forgets these processes, whose rows the caller has locked, with at most so many of their users; the
-- others are left to who comes next. Nobody can state a presence for a user without having him in
-- brain.node_users, so it does no harm that one may appear between the look and the lock.
CREATE FUNCTION brain.bury(nodes uuid[], most integer) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    users text[];
BEGIN
    WITH gone AS (
        DELETE FROM brain.node_users d
         WHERE (d.node, d.user_id) IN (SELECT u.node, u.user_id FROM brain.node_users u
                                        WHERE u.node = ANY (nodes) LIMIT most)
        RETURNING d.user_id)
    SELECT array_agg(g.user_id) INTO users FROM gone g;
    DELETE FROM brain.connections c WHERE c.node = ANY (nodes);
    UPDATE brain.nodes n SET seen_at = '-infinity'
     WHERE n.id = ANY (nodes) AND EXISTS (SELECT FROM brain.node_users u WHERE u.node = n.id);
    DELETE FROM brain.nodes n
     WHERE n.id = ANY (nodes) AND NOT EXISTS (SELECT FROM brain.node_users u WHERE u.node = n.id);
    IF EXISTS (SELECT FROM brain.presence p WHERE p.user_id = ANY (users)) THEN
        LOCK TABLE brain.presence_lock IN EXCLUSIVE MODE;
        PERFORM brain.tell_offline(users);
    END IF;
END $$;

-- The processes that were not seen for a while, locked. One that somebody else is working on is passed
-- over, so that nobody waits for anybody who waits, and each is buried by one.
CREATE FUNCTION brain.dead_nodes() RETURNS uuid[] LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT n.id FROM brain.nodes n WHERE NOT brain.is_recent(n.seen_at)
                    FOR UPDATE SKIP LOCKED)
$$;

-- Carries out what happened to users of a process, one after the other: 'here' and 'gone' when their
-- first connection began and the last one ended, which brain.node_users has already; a status that
-- they stated; 'still' and a status where that was told before and may have got lost.
CREATE FUNCTION brain.follow_presence(node uuid, users text[], acts text[]) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    person text;
    act text;
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(users, acts) a (user_id, act)
                    WHERE a.act <> 'here'
                      AND (a.act <> 'gone'
                           OR EXISTS (SELECT FROM brain.presence p WHERE p.user_id = a.user_id))) THEN
        RETURN;
    END IF;
    LOCK TABLE brain.presence_lock IN EXCLUSIVE MODE;
    FOR person, act IN
        SELECT a.user_id, a.act FROM unnest(users, acts) WITH ORDINALITY a (user_id, act, number)
         WHERE a.act <> 'here' ORDER BY a.number
    LOOP
        IF act = 'gone' THEN
            -- He may be here again by the end of the list.
            DELETE FROM brain.presence p
             WHERE p.user_id = person
               AND NOT EXISTS (SELECT FROM brain.node_users u
                                WHERE u.user_id = person AND u.node <> follow_presence.node);
            act := 'offline';
        ELSIF act LIKE 'still %' THEN
            act := substr(act, 7);
            INSERT INTO brain.presence VALUES (person, act) ON CONFLICT DO NOTHING;
        ELSE
            INSERT INTO brain.presence AS p VALUES (person, act)
            ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE SET status = excluded.status
             WHERE p.status <> excluded.status;
        END IF;
        IF FOUND THEN
            PERFORM brain.tell_presence(person, act);
        END IF;
    END LOOP;
END $$;

-- Says that a process serves, and what is new there; returns how many clients the others have, or null
-- if the process is not known, or not any more: then nothing has happened, and it has to say all.
--
-- news: counts what the process says. What comes late, over a connection that was given up, is ignored.
-- is_all: whether this is all there is, instead of what has changed.
-- channels: {"name": how many clients hear it, …}; 0: nobody any more.
-- users, acts: see brain.follow_presence; if this is all, it begins with everybody who is here.
-- connections: {"id": [its channels], …}; null: it has ended.
CREATE FUNCTION brain.attend(node uuid, name text, news bigint, is_all boolean,
                             clients integer, authenticated integer, channels jsonb,
                             users text[], acts text[], connections jsonb)
RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- A plan may be made while there are few.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    left_unsaid text[];
    is_roll_called boolean;
BEGIN
    UPDATE brain.nodes n
       SET clients = attend.clients, authenticated = attend.authenticated, seen_at = clock_timestamp(),
           news = attend.news,
           channels = CASE WHEN is_all THEN attend.channels
                           ELSE (n.channels || attend.channels)
                                - ARRAY(SELECT key FROM jsonb_each(attend.channels) WHERE value = '0') END
     WHERE n.id = node AND n.news < attend.news AND (is_all OR n.seen_at > '-infinity');
    IF NOT FOUND AND is_all THEN
        INSERT INTO brain.nodes (id, name, clients, seen_at, authenticated, channels, news)
        VALUES (node, name, clients, clock_timestamp(), authenticated, channels, news) ON CONFLICT DO NOTHING;
    END IF;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;

    INSERT INTO brain.roll_call DEFAULT VALUES ON CONFLICT DO NOTHING;
    UPDATE brain.roll_call r SET is_over = true
     WHERE NOT r.is_over AND r.since < clock_timestamp() - interval '15 seconds';
    is_roll_called := FOUND;

    DELETE FROM brain.connections c
     WHERE c.node = attend.node
       AND (is_all OR c.id IN (SELECT key::uuid FROM jsonb_each(attend.connections)));
    INSERT INTO brain.connections
    SELECT attend.node, key::uuid, ARRAY(SELECT jsonb_array_elements_text(value))
      FROM jsonb_each(attend.connections) WHERE value <> 'null';

    IF is_all THEN
        -- Who was here when the process spoke last, and is not any more.
        left_unsaid := ARRAY(SELECT u.user_id FROM brain.node_users u WHERE u.node = attend.node
                             EXCEPT SELECT unnest(users));
        users := left_unsaid || users;
        acts := array_fill('gone'::text, ARRAY[cardinality(left_unsaid)]) || acts;
    END IF;
    WITH last AS (
        SELECT DISTINCT ON (a.user_id) a.user_id, a.act
          FROM unnest(users, acts) WITH ORDINALITY a (user_id, act, number)
         WHERE a.act IN ('here', 'gone') ORDER BY a.user_id, a.number DESC),
    gone AS (
        DELETE FROM brain.node_users u USING last l
         WHERE u.node = attend.node AND u.user_id = l.user_id AND l.act = 'gone')
    INSERT INTO brain.node_users SELECT attend.node, l.user_id FROM last l WHERE l.act = 'here'
    ON CONFLICT DO NOTHING;

    PERFORM brain.follow_presence(node, users, acts), brain.bury(brain.dead_nodes(), 5000);
    IF is_roll_called THEN
        LOCK TABLE brain.presence_lock IN EXCLUSIVE MODE;
        PERFORM brain.tell_offline(NULL);
    END IF;
    RETURN brain.clients_elsewhere(node);
END $$;

-- As a process says it that knows of no users.
CREATE OR REPLACE FUNCTION brain.beat(node uuid, name text, clients integer) RETURNS bigint LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    INSERT INTO brain.nodes (id, name, clients, seen_at) VALUES (node, name, clients, clock_timestamp())
    ON CONFLICT ON CONSTRAINT nodes_pkey DO UPDATE
       SET clients = excluded.clients, seen_at = excluded.seen_at;
    PERFORM brain.bury(brain.dead_nodes(), 5000);
    RETURN brain.clients_elsewhere(node);
END $$;

-- Says that a process serves no more.
CREATE OR REPLACE FUNCTION brain.leave(node uuid) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    PERFORM FROM brain.nodes n WHERE n.id = node FOR UPDATE;
    IF FOUND THEN
        PERFORM brain.bury(ARRAY[node], NULL);
    END IF;
END $$;

-- How many clients all processes have, how many of those have a user, how many users that are, and how
-- many clients hear which channel.
CREATE FUNCTION brain.everywhere(OUT clients bigint, OUT authenticated bigint, OUT users bigint,
                                 OUT channels jsonb) LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    WITH recent AS MATERIALIZED (SELECT n.* FROM brain.nodes n WHERE brain.is_recent(n.seen_at))
    SELECT coalesce(sum(r.clients), 0), coalesce(sum(r.authenticated), 0),
           (SELECT count(DISTINCT u.user_id) FROM brain.node_users u WHERE u.node IN (SELECT id FROM recent)),
           (SELECT coalesce(jsonb_object_agg(t.channel, t.total), '{}')
              FROM (SELECT c.key, sum(c.value::bigint) FROM recent, jsonb_each_text(recent.channels) c
                     GROUP BY c.key) t (channel, total))
      FROM recent r
$$;

-- How many clients of all processes hear a channel, and the ids of those that may be listed, of ten
-- thousand at most.
CREATE FUNCTION brain.subscribers(channel text, OUT clients bigint, OUT ids uuid[]) LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    WITH recent AS MATERIALIZED (SELECT n.* FROM brain.nodes n WHERE brain.is_recent(n.seen_at))
    SELECT coalesce(sum((r.channels ->> subscribers.channel)::bigint), 0),
           ARRAY(SELECT c.id FROM brain.connections c
                  WHERE subscribers.channel = ANY (c.channels) AND c.node IN (SELECT id FROM recent)
                  ORDER BY c.id LIMIT 10000)
      FROM recent r
$$;
