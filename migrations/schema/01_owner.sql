-- The owner of schema brain and of everything in it. Trigger functions run with the rights of their
-- owner, so the owner is a role that cannot log in and that owns nothing else.
--
-- And the reader, as which tables are read: what others define on a table (policies, functions of indexes, casts)
-- runs as the role that reads it. 09_read_tables.sql says what it may do.
--
-- Locks: brain.schema_versions ACCESS EXCLUSIVE

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['brain_owner', 'brain_reader'] LOOP
        BEGIN
            IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
                EXECUTE format('CREATE ROLE %I NOLOGIN', name);
            END IF;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;  -- the migration of another database of this server has just created it
        END;
        IF NOT pg_has_role(current_user, name, 'USAGE') THEN
            EXECUTE format('GRANT %I TO %I', name, current_user);
        END IF;
    END LOOP;
END $$;

ALTER SCHEMA brain OWNER TO brain_owner;
ALTER TABLE brain.schema_versions OWNER TO brain_owner;
