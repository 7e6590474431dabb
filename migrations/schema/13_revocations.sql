-- A token is valid until it expires. brain.revoke ends that earlier for a user: it revokes all tokens that
-- were issued until then, on all nodes, as soon as the transaction commits.

SET LOCAL ROLE brain_owner;

-- Rows stay until an operator deletes them. Only the issuer of the tokens knows how long they live, and a
-- token would be valid again if its row were removed too early; a row takes some hundred bytes.
CREATE TABLE IF NOT EXISTS brain.revocations (
    user_id    text        PRIMARY KEY,
    revoked_at timestamptz NOT NULL,
    reason     text                  -- for the operator; it is sent to no client
);

-- Revokes all tokens of a user that were issued until now. A role that is not a member of brain_owner
-- needs GRANT USAGE ON SCHEMA brain and GRANT EXECUTE ON FUNCTION brain.revoke.
CREATE OR REPLACE FUNCTION brain.revoke(user_id text, reason text DEFAULT NULL) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF coalesce(length(user_id), 0) NOT BETWEEN 1 AND 255 THEN
        RAISE EXCEPTION 'the user name must have 1 to 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    END IF;
    INSERT INTO brain.revocations AS r VALUES (user_id, clock_timestamp(), reason)
    ON CONFLICT ON CONSTRAINT revocations_pkey DO UPDATE
       SET revoked_at = greatest(r.revoked_at, excluded.revoked_at), reason = excluded.reason;
    -- For the nodes, which read the channel themselves; for no client.
    PERFORM brain.append('brain.revocations', 'revoked', 'P', NULL, json_build_object('user', user_id)::text,
                         NULL, '');
END $$;
REVOKE ALL ON FUNCTION brain.revoke FROM PUBLIC;
