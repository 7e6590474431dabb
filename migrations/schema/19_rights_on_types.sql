-- Types are created with every table and view of the files before this one.

SET LOCAL ROLE brain_owner;

-- A column of a type of Brain, in a table of somebody else, would keep the table of that type from being altered.
DO $$
DECLARE
    type regtype;
BEGIN
    FOR type IN SELECT t.oid FROM pg_type t
                 WHERE t.typnamespace = 'brain'::regnamespace AND t.typcategory <> 'A'
                   AND EXISTS (SELECT FROM aclexplode(coalesce(t.typacl, acldefault('T', t.typowner))) a
                                WHERE a.grantee = 0) LOOP
        EXECUTE format('REVOKE ALL ON TYPE %s FROM PUBLIC', type);
    END LOOP;
END $$;
