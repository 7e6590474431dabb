-- The owner of schema brain and of everything in it. Trigger functions run with the rights of their
-- owner, so the owner is a role that cannot log in and that owns nothing else.

DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'brain_owner') THEN
        CREATE ROLE brain_owner NOLOGIN;
    END IF;
EXCEPTION WHEN duplicate_object OR unique_violation THEN
    NULL;  -- the migration of another database of this server has just created it
END $$;

DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'brain_owner', 'USAGE') THEN
        EXECUTE format('GRANT brain_owner TO %I', current_user);
    END IF;
END $$;

ALTER SCHEMA brain OWNER TO brain_owner;
ALTER TABLE brain.schema_versions OWNER TO brain_owner;
