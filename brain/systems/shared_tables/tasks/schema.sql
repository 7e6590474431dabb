-- public.tasks: what agents work on.

SET LOCAL ROLE brain_owner;

-- A trigger function that sets updated_at where the writer has not set it. All names in it are qualified: it runs with
-- the search path of the writer, as a setting of its own would cost more than the rest. This and brain.complete_task
-- fire only where they have something to do, because each call costs its writer a good part of the update.
CREATE OR REPLACE FUNCTION brain.touch_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.updated_at := pg_catalog.now();
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION brain.touch_task FROM PUBLIC;

-- A trigger function that sets what follows from a change of status or payload, where the writer has not
-- set it: when a task started and was completed, and the progress that a payload's current_step reports.
CREATE OR REPLACE FUNCTION brain.complete_task() RETURNS trigger LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
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
    IF jsonb_typeof(step) = 'number' AND (CASE WHEN is_new THEN NEW.progress = 0
            ELSE NEW.progress = OLD.progress AND step IS DISTINCT FROM OLD.payload -> 'current_step' END)
       AND (step = '0' OR step BETWEEN '1e-300' AND '1e15') THEN  -- double precision has no 1e-400
        NEW.progress := step::double precision;
    END IF;
    RETURN NEW;
END $$;
REVOKE ALL ON FUNCTION brain.complete_task FROM PUBLIC;

RESET ROLE;

SELECT brain.adopt_table('tasks', 'public.tasks',
    channel => 'tasks',
    required => '{id,status}',
    wanted => '{agent,progress,started_at,completed_at,error}',
    definition => $table$
CREATE TABLE public.tasks (
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

CREATE TRIGGER brain_complete_new_task BEFORE INSERT ON public.tasks FOR EACH ROW
    WHEN (NEW.status <> 'queued' OR NEW.payload ? 'current_step')
    EXECUTE FUNCTION brain.complete_task();
CREATE TRIGGER brain_complete_task BEFORE UPDATE OF status, payload ON public.tasks FOR EACH ROW
    WHEN (NEW.status <> OLD.status OR NEW.payload IS DISTINCT FROM OLD.payload)
    EXECUTE FUNCTION brain.complete_task();
CREATE TRIGGER brain_touch_task BEFORE UPDATE ON public.tasks FOR EACH ROW
    WHEN (NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at)
    EXECUTE FUNCTION brain.touch_task();
$table$,
    substitutes => '{"progress": "current_step"}',
    document => 'payload',
    in_document => '{agent,progress,error}');
