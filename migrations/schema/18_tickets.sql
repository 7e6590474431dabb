-- A ticket opens streams of events (`GET /sse`), for browsers, which can send no token with such a request. It is the
-- token, encrypted: every node opens what another one has issued, with the one key that is here.

SET LOCAL ROLE brain_owner;

CREATE TABLE IF NOT EXISTS brain.ticket_key (
    is_only boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    key     bytea   NOT NULL CHECK (length(key) = 32)
);

-- Each uuid has 122 random bits.
INSERT INTO brain.ticket_key (key)
VALUES (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'))
ON CONFLICT DO NOTHING;
