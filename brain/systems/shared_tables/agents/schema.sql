-- public.agents: the agents that work, and their state.

RESET ROLE;

SELECT brain.adopt_table('agents', 'public.agents',
    channel => 'agents',
    required => '{id,status}',
    wanted => '{name,current_task,progress,error,health,heartbeat_at}',
    definition => $table$
CREATE TABLE public.agents (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    name         text,
    status       text NOT NULL DEFAULT 'idle'
                 CHECK (status IN ('idle', 'working', 'stopped', 'error', 'online', 'offline')),
    current_task text,
    progress     double precision CHECK (progress >= 0 AND progress < 'infinity'),
    error        text,
    health       jsonb NOT NULL DEFAULT '{}',
    heartbeat_at timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now()
) WITH (fillfactor = 85);  -- room for an update on the same page

CREATE TRIGGER brain_set_updated_at BEFORE UPDATE ON public.agents
    FOR EACH ROW EXECUTE FUNCTION brain.set_updated_at();
$table$);
