-- public.missions: what agents work towards; and messages for all clients of channels at once.

RESET ROLE;

SELECT brain.adopt_table('channels', 'public.missions',
    channel => 'missions',
    required => '{id,status}',
    wanted => '{name,priority,result,error}',
    definition => $table$
CREATE TABLE public.missions (
    id         text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    name       text,
    priority   text,
    status     text NOT NULL DEFAULT 'created'
               CHECK (status IN ('created', 'started', 'completed', 'failed')),
    result     jsonb,
    error      text,
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.missions
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);

SET LOCAL ROLE brain_owner;

-- Publishes a message to every client of channels, whatever it has subscribed to. A role that is not a
-- member of brain_owner needs GRANT USAGE ON SCHEMA brain and GRANT EXECUTE ON FUNCTION brain.broadcast.
CREATE OR REPLACE FUNCTION brain.broadcast(type text, data jsonb DEFAULT '{}') RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    content CONSTANT text := coalesce(data::text, 'null');
BEGIN
    IF coalesce(type, '') = '' THEN
        RAISE EXCEPTION 'a message needs a type' USING ERRCODE = 'invalid_parameter_value';
    ELSIF length(type) > 255 THEN
        RAISE EXCEPTION 'the type of a message has at most 255 characters'
              USING ERRCODE = 'invalid_parameter_value';
    ELSIF octet_length(content) > 262144 THEN
        RAISE EXCEPTION 'the data of a message is at most 262144 bytes, not %', octet_length(content)
              USING ERRCODE = 'program_limit_exceeded';
    END IF;
    PERFORM brain.append('brain.everyone', type, 'P', NULL, content, NULL);
END $$;
REVOKE ALL ON FUNCTION brain.broadcast FROM PUBLIC;
