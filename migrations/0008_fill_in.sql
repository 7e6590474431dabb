-- What an update of a task fills in costs its writer half: the common ones, which neither turn the
-- status nor touch the payload, are let through first, by as few expressions as will do.

SET LOCAL ROLE brain_owner;

-- Fills in what follows from a change, where the writer did not say it: when a task started and was
-- completed, when it was touched last, and the progress that a payload's current_step reports.
CREATE OR REPLACE FUNCTION brain.fill_in_task() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' AND NEW.updated_at IS NOT DISTINCT FROM OLD.updated_at THEN
        NEW.updated_at := now();
    END IF;
    IF TG_OP = 'UPDATE' AND NEW.status = OLD.status AND NEW.payload IS NOT DISTINCT FROM OLD.payload THEN
        RETURN NEW;
    END IF;
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
           AND step BETWEEN '0' AND '1e15' THEN
            NEW.progress := step::double precision;
        END IF;
    END;
    RETURN NEW;
END $$;
