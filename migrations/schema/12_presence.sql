-- Presence: which users and clients are connected to which node (a process that serves), so that every
-- node can answer for all of them. A user is published as offline when the last of their connections
-- has ended, on any node, even if that node crashed, and none has begun within a grace (in seconds, a
-- setting of each node).
--
-- Locks are taken in one order: the row of the node that reports, then brain.crash_recovery, then the
-- rows of expired nodes that no other session has locked, then brain.presence_lock. So there is no
-- deadlock, and each is held for one statement.
--
-- Locks: brain.nodes SHARE UPDATE EXCLUSIVE

SET LOCAL ROLE brain_owner;

-- Unlogged: after a crash every node reports again. Half of each page is free for the next version of its
-- rows, which then needs no index entry.
CREATE UNLOGGED TABLE IF NOT EXISTS brain.nodes (
    id            uuid        PRIMARY KEY,  -- drawn by the node
    name          text        NOT NULL,     -- its host, and its process id there
    clients       integer     NOT NULL,     -- connected to it
    seen_at       timestamptz NOT NULL,     -- when it reported last
    authenticated integer     NOT NULL DEFAULT 0,     -- how many of its clients have a user
    channels      jsonb       NOT NULL DEFAULT '{}',  -- channel -> number of its subscribers there
    report_number bigint      NOT NULL DEFAULT 0      -- the number of its last report
) WITH (fillfactor = 50);
COMMENT ON COLUMN brain.nodes.seen_at IS
    'when it reported last, by clock_timestamp(); -infinity: it has expired and is being removed';

-- Unlogged, like brain.nodes. A session that writes or deletes rows of a node has its row there locked.
CREATE UNLOGGED TABLE IF NOT EXISTS brain.node_users (
    node    uuid NOT NULL,
    user_id text NOT NULL,  -- has at least one connection to it
    PRIMARY KEY (node, user_id)
);
CREATE UNLOGGED TABLE IF NOT EXISTS brain.connections (
    node     uuid   NOT NULL,
    id       uuid   NOT NULL,
    channels text[] NOT NULL,
    PRIMARY KEY (node, id)
);

-- The status that was published last for each user who has one and is connected; 'offline': the user is
-- connected, and wants to appear offline. Logged, like the events: so after a crash no user stays online for
-- ever, and nothing is published twice. Changed under the lock only.
CREATE TABLE IF NOT EXISTS brain.presence (
    user_id    text COLLATE "C" PRIMARY KEY,
    status     text NOT NULL CHECK (status IN ('online', 'away', 'busy', 'offline')),
    offline_at timestamptz  -- when the grace ends that began with the end of the last connection
);
CREATE TABLE IF NOT EXISTS brain.presence_lock ();

-- CREATE INDEX IF NOT EXISTS would wait for nodes that report, which might wait for it, even where the index exists.
DO $$
BEGIN
    IF to_regclass('brain.node_users_user_id_idx') IS NULL THEN
        CREATE INDEX node_users_user_id_idx ON brain.node_users (user_id);
    END IF;
    IF to_regclass('brain.presence_offline_at_idx') IS NULL THEN
        CREATE INDEX presence_offline_at_idx ON brain.presence (offline_at) WHERE offline_at IS NOT NULL;
    END IF;
END $$;

-- Empty after a crash of the server. Then every node reports its users again, and after 15 seconds users
-- with a presence and without a node are published as offline.
CREATE UNLOGGED TABLE IF NOT EXISTS brain.crash_recovery (
    is_only boolean     PRIMARY KEY DEFAULT true CHECK (is_only),  -- so there is one row
    since   timestamptz NOT NULL DEFAULT clock_timestamp(),
    is_over boolean     NOT NULL DEFAULT false
);

-- True if a node that reported at that time still counts as serving. A time in the future dates from
-- before the clock was set back.
CREATE OR REPLACE FUNCTION brain.is_recent(seen_at timestamptz) RETURNS boolean LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT seen_at BETWEEN clock_timestamp() - interval '5 seconds'
                       AND clock_timestamp() + interval '5 seconds'
$$;
REVOKE ALL ON FUNCTION brain.is_recent FROM PUBLIC;

-- When a node reported last. One whose time is not known has not for five seconds: it is being removed, or
-- the clock was set back.
CREATE OR REPLACE FUNCTION brain.last_report(seen_at timestamptz) RETURNS timestamptz LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT CASE WHEN seen_at > '-infinity' AND seen_at <= clock_timestamp() THEN seen_at
                ELSE clock_timestamp() - interval '5 seconds' END
$$;
REVOKE ALL ON FUNCTION brain.last_report FROM PUBLIC;

-- The number of clients of all other nodes.
CREATE OR REPLACE FUNCTION brain.clients_on_other_nodes(node uuid) RETURNS bigint LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(sum(n.clients), 0) FROM brain.nodes n
     WHERE n.id <> node AND brain.is_recent(n.seen_at)
$$;
REVOKE ALL ON FUNCTION brain.clients_on_other_nodes FROM PUBLIC;

-- Publishes a user's status.
CREATE OR REPLACE FUNCTION brain.publish_presence(user_id text, status text) RETURNS void
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT brain.append('presence', 'user_presence', 'P', NULL,
                        jsonb_build_object('userId', user_id, 'status', status)::text, NULL)
$$;
REVOKE ALL ON FUNCTION brain.publish_presence FROM PUBLIC;

-- Publishes as offline whose grace is over and who have no connection, unless they appeared so already.
CREATE OR REPLACE FUNCTION brain.publish_offline() RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    moment CONSTANT timestamptz := clock_timestamp();
    person text;
    former text;
BEGIN
    IF NOT EXISTS (SELECT FROM brain.presence p WHERE p.offline_at <= moment) THEN
        RETURN;
    END IF;
    LOCK TABLE brain.presence_lock IN SHARE UPDATE EXCLUSIVE MODE;
    UPDATE brain.presence p SET offline_at = NULL
     WHERE p.offline_at <= moment AND EXISTS (SELECT FROM brain.node_users u WHERE u.user_id = p.user_id);
    FOR person, former IN
        DELETE FROM brain.presence p
         WHERE p.offline_at <= moment
           AND NOT EXISTS (SELECT FROM brain.node_users u WHERE u.user_id = p.user_id)
        RETURNING p.user_id, p.status
    LOOP
        IF former <> 'offline' THEN
            PERFORM brain.publish_presence(person, 'offline');
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.publish_offline FROM PUBLIC;

-- Removes these nodes (the caller has locked their rows), with at most `most` of their users; the next
-- call removes the others. The grace of their users began when the node reported last. A node states a
-- presence only for users that it has in brain.node_users, so a user who appears between the check and the
-- lock does no harm.
CREATE OR REPLACE FUNCTION brain.expire_nodes(nodes uuid[], most integer, grace interval) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    users text[];
    ends  timestamptz[];
BEGIN
    WITH gone AS (
        DELETE FROM brain.node_users d
         WHERE (d.node, d.user_id) IN (SELECT u.node, u.user_id FROM brain.node_users u
                                        WHERE u.node = ANY (nodes) LIMIT most)
        RETURNING d.node, d.user_id)
    SELECT array_agg(g.user_id), array_agg(brain.last_report(n.seen_at) + grace) INTO users, ends
      FROM gone g JOIN brain.nodes n ON n.id = g.node;
    DELETE FROM brain.connections c WHERE c.node = ANY (nodes);
    UPDATE brain.nodes n SET seen_at = '-infinity'
     WHERE n.id = ANY (nodes) AND EXISTS (SELECT FROM brain.node_users u WHERE u.node = n.id);
    DELETE FROM brain.nodes n
     WHERE n.id = ANY (nodes) AND NOT EXISTS (SELECT FROM brain.node_users u WHERE u.node = n.id);
    IF EXISTS (SELECT FROM brain.presence p WHERE p.user_id = ANY (users)) THEN
        LOCK TABLE brain.presence_lock IN SHARE UPDATE EXCLUSIVE MODE;
        UPDATE brain.presence p SET offline_at = l.offline_at
          FROM (SELECT g.user_id, max(g.offline_at) FROM unnest(users, ends) g (user_id, offline_at)
                 GROUP BY g.user_id) l (user_id, offline_at)
         WHERE p.user_id = l.user_id;
        PERFORM brain.publish_offline();
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.expire_nodes FROM PUBLIC;

-- Locks and returns the nodes that have not reported for a while. Nodes that another session has locked
-- are skipped, so that no session waits for one that waits, and each node is expired by one session.
CREATE OR REPLACE FUNCTION brain.unreported_nodes() RETURNS uuid[] LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    SELECT ARRAY(SELECT n.id FROM brain.nodes n WHERE NOT brain.is_recent(n.seen_at)
                    FOR UPDATE SKIP LOCKED)
$$;
REVOKE ALL ON FUNCTION brain.unreported_nodes FROM PUBLIC;

-- Applies what happened to users of a node, in order: 'connected' and 'disconnected' when their first
-- connection began and the last one ended, which brain.node_users holds already; a status that they set, which
-- may be 'offline'; 'restated' and a status that was published before and may have been lost.
CREATE OR REPLACE FUNCTION brain.apply_presence(node uuid, users text[], changes text[],
                                                grace interval DEFAULT '0') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    person text;
    change text;
    former text;
BEGIN
    IF NOT EXISTS (SELECT FROM unnest(users, changes) a (user_id, change)
                    WHERE a.change <> 'connected'
                      AND (a.change <> 'disconnected'
                           OR EXISTS (SELECT FROM brain.presence p WHERE p.user_id = a.user_id))) THEN
        RETURN;
    END IF;
    LOCK TABLE brain.presence_lock IN SHARE UPDATE EXCLUSIVE MODE;
    FOR person, change IN
        SELECT a.user_id, a.change FROM unnest(users, changes) WITH ORDINALITY a (user_id, change, number)
         WHERE a.change <> 'connected' ORDER BY a.number
    LOOP
        IF change = 'disconnected' THEN
            -- The user may have connected again by the end of the list.
            CONTINUE WHEN EXISTS (SELECT FROM brain.node_users u
                                   WHERE u.user_id = person AND u.node <> apply_presence.node);
            UPDATE brain.presence p SET offline_at = clock_timestamp() + grace
             WHERE p.user_id = person AND p.status <> 'offline' AND grace > interval '0';
            CONTINUE WHEN FOUND;
            DELETE FROM brain.presence p WHERE p.user_id = person RETURNING p.status INTO former;
            change := 'offline';
            CONTINUE WHEN former = change;
        ELSIF change LIKE 'restated %' THEN
            change := substr(change, 10);
            INSERT INTO brain.presence VALUES (person, change) ON CONFLICT DO NOTHING;
            CONTINUE WHEN change = 'offline';  -- a user without a status appears so
        ELSE
            INSERT INTO brain.presence AS p VALUES (person, change)
            ON CONFLICT ON CONSTRAINT presence_pkey DO UPDATE SET status = excluded.status
             WHERE p.status <> excluded.status;
        END IF;
        IF FOUND THEN
            PERFORM brain.publish_presence(person, change);
        END IF;
    END LOOP;
END $$;
REVOKE ALL ON FUNCTION brain.apply_presence FROM PUBLIC;

-- Stores a node's report: that it serves, and what has changed there. Returns false if the node is not
-- known (any more): then nothing was stored, and the node has to report everything.
--
-- report_number: counts the node's reports. A late one, over an abandoned connection, is ignored.
-- is_all: true if this is the whole state instead of what has changed.
-- channels: {"name": number of subscribers, ...}; 0: none any more.
-- users, changes: see brain.apply_presence; the whole state begins with all users who are connected.
-- connections: {"id": [its channels], ...}; null: it has ended.
-- grace_seconds: how long a user without a connection is not published as offline.
CREATE OR REPLACE FUNCTION brain.report_node(node uuid, name text, report_number bigint, is_all boolean,
                                             clients integer, authenticated integer, channels jsonb,
                                             users text[], changes text[], connections jsonb,
                                             grace_seconds double precision DEFAULT 0)
RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp
-- A plan may be made while there are few rows.
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
DECLARE
    grace CONSTANT interval := make_interval(secs => grace_seconds);
    missed text[];
    is_recovered boolean;
BEGIN
    UPDATE brain.nodes n
       SET clients = report_node.clients, authenticated = report_node.authenticated,
           seen_at = clock_timestamp(), report_number = report_node.report_number,
           channels = CASE WHEN is_all THEN report_node.channels
                           ELSE (n.channels || report_node.channels)
                                - ARRAY(SELECT key FROM jsonb_each(report_node.channels) WHERE value = '0') END
     WHERE n.id = node AND n.report_number < report_node.report_number
       AND (is_all OR n.seen_at > '-infinity');
    IF NOT FOUND AND is_all THEN
        INSERT INTO brain.nodes (id, name, clients, seen_at, authenticated, channels, report_number)
        VALUES (node, name, clients, clock_timestamp(), authenticated, channels, report_number)
        ON CONFLICT DO NOTHING;
    END IF;
    IF NOT FOUND THEN
        RETURN false;
    END IF;

    INSERT INTO brain.crash_recovery DEFAULT VALUES ON CONFLICT DO NOTHING;
    UPDATE brain.crash_recovery r SET is_over = true
     WHERE NOT r.is_over AND r.since < clock_timestamp() - interval '15 seconds';
    is_recovered := FOUND;

    DELETE FROM brain.connections c
     WHERE c.node = report_node.node
       AND (is_all OR c.id IN (SELECT key::uuid FROM jsonb_each(report_node.connections)));
    INSERT INTO brain.connections
    SELECT report_node.node, key::uuid, ARRAY(SELECT jsonb_array_elements_text(value))
      FROM jsonb_each(report_node.connections) WHERE value <> 'null';

    IF is_all THEN
        -- Users who were connected at the last report, and are not any more.
        missed := ARRAY(SELECT u.user_id FROM brain.node_users u WHERE u.node = report_node.node
                             EXCEPT SELECT unnest(users));
        users := missed || users;
        changes := array_fill('disconnected'::text, ARRAY[cardinality(missed)]) || changes;
    END IF;
    WITH last AS (
        SELECT DISTINCT ON (a.user_id) a.user_id, a.change
          FROM unnest(users, changes) WITH ORDINALITY a (user_id, change, number)
         WHERE a.change IN ('connected', 'disconnected') ORDER BY a.user_id, a.number DESC),
    gone AS (
        DELETE FROM brain.node_users u USING last l
         WHERE u.node = report_node.node AND u.user_id = l.user_id AND l.change = 'disconnected')
    INSERT INTO brain.node_users SELECT report_node.node, l.user_id FROM last l WHERE l.change = 'connected'
    ON CONFLICT DO NOTHING;

    PERFORM brain.apply_presence(node, users, changes, grace),
            brain.expire_nodes(brain.unreported_nodes(), 5000, grace);
    IF is_recovered THEN
        LOCK TABLE brain.presence_lock IN SHARE UPDATE EXCLUSIVE MODE;
        UPDATE brain.presence p SET offline_at = clock_timestamp()
         WHERE p.offline_at IS NULL AND NOT EXISTS (SELECT FROM brain.node_users u WHERE u.user_id = p.user_id);
    END IF;
    PERFORM brain.publish_offline();
    RETURN true;
END $$;
REVOKE ALL ON FUNCTION brain.report_node FROM PUBLIC;

-- Removes a node that stops serving. The grace of its users begins now.
CREATE OR REPLACE FUNCTION brain.remove_node(node uuid, grace_seconds double precision DEFAULT 0) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan SET jit = off AS $$
BEGIN
    UPDATE brain.nodes n SET seen_at = clock_timestamp() WHERE n.id = node;
    IF FOUND THEN
        PERFORM brain.expire_nodes(ARRAY[node], NULL, make_interval(secs => grace_seconds));
    END IF;
END $$;
REVOKE ALL ON FUNCTION brain.remove_node FROM PUBLIC;

-- The number of clients of all nodes, of those with a user, of distinct users, and of subscribers by
-- channel.
CREATE OR REPLACE FUNCTION brain.cluster_counts(OUT clients bigint, OUT authenticated bigint, OUT users bigint,
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
REVOKE ALL ON FUNCTION brain.cluster_counts FROM PUBLIC;

-- The number of subscribers of a channel on all nodes, and the ids of those that may be listed, at most
-- ten thousand.
CREATE OR REPLACE FUNCTION brain.subscribers(channel text, OUT clients bigint, OUT ids uuid[])
LANGUAGE sql VOLATILE
SET search_path = pg_catalog, pg_temp AS $$
    WITH recent AS MATERIALIZED (SELECT n.* FROM brain.nodes n WHERE brain.is_recent(n.seen_at))
    SELECT coalesce(sum((r.channels ->> subscribers.channel)::bigint), 0),
           ARRAY(SELECT c.id FROM brain.connections c
                  WHERE subscribers.channel = ANY (c.channels) AND c.node IN (SELECT id FROM recent)
                  ORDER BY c.id LIMIT 10000)
      FROM recent r
$$;
REVOKE ALL ON FUNCTION brain.subscribers FROM PUBLIC;
