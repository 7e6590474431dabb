-- The first watched table: what agents work on. A database that has a table `tasks` already keeps it,
-- as long as it has the columns; its triggers, defaults and checks stay its own.

CREATE TABLE IF NOT EXISTS public.tasks (
    id           text PRIMARY KEY DEFAULT gen_random_uuid()::text,
    title        text,
    agent        text,
    status       text NOT NULL DEFAULT 'queued'
                 CHECK (status IN ('queued', 'running', 'in_progress', 'completed', 'failed')),
    progress     double precision NOT NULL DEFAULT 0 CHECK (progress >= 0 AND progress < 'infinity'),
    payload      jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(payload) = 'object'),
    started_at   timestamptz,
    completed_at timestamptz,
    updated_at   timestamptz NOT NULL DEFAULT now(),
    error        text
) WITH (fillfactor = 85);  -- room for an update on the same page

DO $$
DECLARE
    missing text := (
        SELECT string_agg(name, ', ' ORDER BY position)
          FROM unnest(ARRAY['id', 'title', 'agent', 'status', 'progress', 'payload', 'started_at',
                            'completed_at', 'updated_at', 'error']) WITH ORDINALITY c(name, position)
         WHERE NOT EXISTS (SELECT FROM pg_attribute
                            WHERE attrelid = 'public.tasks'::regclass AND attname = name
                              AND attnum > 0 AND NOT attisdropped));
BEGIN
    IF missing IS NOT NULL THEN
        RAISE EXCEPTION 'the table public.tasks exists already and lacks: %', missing;
    END IF;
END $$;

SET LOCAL ROLE brain_owner;

-- Fills in what follows from a change, where the writer did not say it: when a task started and was
-- completed, when it was touched last, and the progress that a payload's current_step reports.
CREATE FUNCTION brain.fill_in_task() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    is_new CONSTANT boolean := TG_OP = 'INSERT';
    starts CONSTANT boolean := NEW.status IN ('running', 'in_progress')
        AND (is_new OR OLD.status NOT IN ('running', 'in_progress'));
    completes CONSTANT boolean := NEW.status = 'completed' AND (is_new OR OLD.status <> 'completed');
    step CONSTANT jsonb := NEW.payload -> 'current_step';
BEGIN
    IF starts AND (CASE WHEN is_new THEN NEW.started_at IS NULL
                        ELSE NEW.started_at IS NOT DISTINCT FROM OLD.started_at END) THEN
        NEW.started_at := now();
        IF NOT is_new AND NEW.completed_at IS NOT DISTINCT FROM OLD.completed_at THEN
            NEW.completed_at := NULL;  -- it runs again
        END IF;
    END IF;
    IF completes AND (CASE WHEN is_new THEN NEW.completed_at IS NULL
                           ELSE NEW.completed_at IS NOT DISTINCT FROM OLD.completed_at END) THEN
        NEW.completed_at := now();
    END IF;
    IF NOT is_new AND NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
        NEW.updated_at := now();
    END IF;
    IF jsonb_typeof(step) = 'number' AND (CASE WHEN is_new THEN NEW.progress = 0
            ELSE NEW.progress = OLD.progress AND step IS DISTINCT FROM OLD.payload -> 'current_step' END)
       AND step BETWEEN '0' AND '1e15' THEN
        NEW.progress := step::double precision;
    END IF;
    RETURN NEW;
END $$;

RESET ROLE;

CREATE TRIGGER brain_fill_in BEFORE INSERT OR UPDATE ON public.tasks
    FOR EACH ROW EXECUTE FUNCTION brain.fill_in_task();

SELECT brain.watch('public.tasks', 'tasks',
    ARRAY['id', 'agent', 'status', 'progress', 'started_at', 'completed_at', 'error']);
