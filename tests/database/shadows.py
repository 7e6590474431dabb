"""
Functions, operators and types that shadow PostgreSQL's own and record the role that runs them.

Each behaves like the original, so only the table `notes` shows that it ran. Every role may insert
into that table.
"""

from __future__ import annotations

import asyncpg

NOTES = """
    CREATE TABLE {schema}.notes (what pg_catalog.text, role pg_catalog.name);
    GRANT USAGE ON SCHEMA {schema} TO PUBLIC;
    GRANT INSERT ON {schema}.notes TO PUBLIC;
    CREATE FUNCTION {schema}.note(what pg_catalog.text) RETURNS pg_catalog.bool LANGUAGE plpgsql
    SET search_path = pg_catalog AS
    $$ BEGIN INSERT INTO {schema}.notes VALUES (what, current_user); RETURN true; END $$;
"""

# One operator per signature over the types that occur in the log, and over pairs of types that
# PostgreSQL has no operator for and converts: there an exact match wins, whatever its schema.
OPERATORS = """
    DO $do$
    DECLARE
        o record;
        number int := 0;
    BEGIN
        FOR o IN
            SELECT oprname, format_type(oprleft, -1) AS l, format_type(oprright, -1) AS r,
                   format_type(oprresult, -1) AS result
              FROM pg_operator
             WHERE oprnamespace = 'pg_catalog'::regnamespace AND oprleft = ANY ({types})
               AND oprright = ANY ({types} || 'interval'::regtype) AND oprcode <> 0
            UNION ALL VALUES
                ('/', 'interval', 'integer', 'interval'), ('&', 'smallint', 'integer', 'integer'),
                ('||', 'text', 'integer', 'text'), ('=', '"char"', 'text', 'boolean'),
                ('=', 'name', 'character varying', 'boolean'), ('%', 'bigint', 'integer', 'bigint')
        LOOP
            number := number + 1;
            EXECUTE format($$
                CREATE FUNCTION {schema}.operator_%1$s(%3$s, %4$s) RETURNS %5$s LANGUAGE plpgsql
                SET search_path = pg_catalog AS
                'BEGIN PERFORM {schema}.note(''%2$s'');
                       RETURN $1 OPERATOR(pg_catalog.%2$s) $2; END';
                CREATE OPERATOR {schema}.%2$s (
                    LEFTARG = %3$s, RIGHTARG = %4$s, FUNCTION = {schema}.operator_%1$s)
            $$, number, o.oprname, o.l, o.r, o.result);
        END LOOP;
    END $do$;
"""
TYPES = (
    "ARRAY['int2', 'int4', 'int8', 'text', 'name', 'bool', 'jsonb', '\"char\"', 'timestamptz',"
    " 'xid8', 'oid', 'float8', 'record', 'text[]']::regtype[]"
)

# One function per signature that a call in Brain's functions could resolve to. A variadic or "any"
# function of PostgreSQL loses to one with exactly the argument types of the call.
FUNCTIONS = """
    DO $do$
    DECLARE
        f record;
    BEGIN
        FOR f IN
            SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS arguments,
                   pg_get_function_result(p.oid) AS result,
                   (SELECT coalesce(string_agg('$' || n, ', ' ORDER BY n), '')
                      FROM generate_series(1, p.pronargs) n) AS passed
              FROM pg_proc p
             WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
               AND NOT p.proretset AND p.provariadic = 0 AND p.proallargtypes IS NULL
               AND p.prorettype <> 'cstring'::regtype  -- which PL/pgSQL does not have
               AND p.proname = ANY (ARRAY(
                   SELECT (regexp_matches(b.prosrc, '([a-z_0-9]+)[(]', 'g'))[1] FROM pg_proc b
                    WHERE b.pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = 'brain')))
               AND NOT p.proargtypes::oid[] && '{internal,cstring,"\\"any\\""}'::regtype[]::oid[]
        LOOP
            EXECUTE format($$
                CREATE FUNCTION {schema}.%1$I(%2$s) RETURNS %3$s LANGUAGE plpgsql
                SET search_path = pg_catalog AS
                'BEGIN PERFORM {schema}.note(''%1$s''); %5$s pg_catalog.%1$I(%4$s); END'
            $$, f.proname, f.arguments, f.result, f.passed,
                CASE WHEN f.result = 'void' THEN 'PERFORM' ELSE 'RETURN' END);
        END LOOP;
        FOR f IN
            SELECT * FROM (VALUES
                ('format', 'text', ', VARIADIC ARRAY[$2]::text[]'), ('num_nulls', 'integer', ''),
                ('json_build_array', 'json', ''), ('json_build_object', 'json', ', $2'),
                ('jsonb_build_array', 'jsonb', ''), ('jsonb_build_object', 'jsonb', ', $2'),
                ('pg_column_size', 'integer', '')) v (name, result, passed),
                unnest(ARRAY['text', 'integer', 'bigint', 'name', 'boolean', 'jsonb', 'timestamptz',
                             '"char"']) type
        LOOP
            EXECUTE format($$
                CREATE FUNCTION {schema}.%1$I(%2$s) RETURNS %3$s LANGUAGE plpgsql
                SET search_path = pg_catalog AS
                'BEGIN PERFORM {schema}.note(''%1$s''); RETURN pg_catalog.%1$I($1%4$s); END'
            $$, f.name, CASE WHEN f.passed = '' THEN '' ELSE 'text, ' END || f.type, f.result,
                f.passed);
        END LOOP;
    END $do$;
    CREATE FUNCTION {schema}.format(text, integer, integer) RETURNS text LANGUAGE plpgsql
    SET search_path = pg_catalog AS
    $$ BEGIN PERFORM {schema}.note('format'); RETURN pg_catalog.format($1, $2, $3); END $$;
"""

DOMAINS = """
    CREATE DOMAIN {schema}.{name} AS pg_catalog.{name}
        CHECK ({schema}.note('type {name}'::pg_catalog.text));
"""
DOMAIN_NAMES = ("text", "jsonb", "int4", "int8", "timestamptz", "xid8", "bool", '"char"', "name")

# Temporary tables are found before all others unless the search path names pg_temp last.
TEMPORARY = """
    CREATE TEMP TABLE watched (LIKE public.tasks);
    CREATE TEMP TABLE events_0 (LIKE public.tasks);
    CREATE TEMP TABLE pg_attribute (attrelid oid, attname name, attnum int, attisdropped bool);
    CREATE TEMP TABLE pg_class (LIKE pg_catalog.pg_class);
"""


async def cast_shadows(session: asyncpg.Connection, schema: str) -> None:
    """Create the shadows in `schema`."""
    await session.execute("SET search_path = pg_catalog")
    for source in (NOTES, OPERATORS, FUNCTIONS):
        await session.execute(source.replace("{schema}", schema).replace("{types}", TYPES))
    for name in DOMAIN_NAMES:
        await session.execute(DOMAINS.format(schema=schema, name=name))
    await session.execute("RESET search_path")


async def notes(session: asyncpg.Connection, schema: str) -> set[tuple[str, str]]:
    """Return the names of the shadows that ran, each with the role that ran it."""
    rows = await session.fetch(f"SELECT what, role FROM {schema}.notes")
    return {(row["what"], row["role"]) for row in rows}
