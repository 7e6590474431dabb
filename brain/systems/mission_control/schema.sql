-- public.sessions: the sessions of agents, with the last message of each.

RESET ROLE;

SELECT brain.adopt_table('mission_control', 'public.sessions',
    channel => 'sessions',
    required => '{id,agent_id,last_message}',
    wanted => '{}',
    definition => $table$
CREATE TABLE public.sessions (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    agent_id     text NOT NULL,
    last_message text,
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.sessions
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);
