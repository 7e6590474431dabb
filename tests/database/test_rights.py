"""A role that may only write to watched tables has no access to the log."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.message.event import Operation
from tests.database.log_reading import parsed
from tests.database.stranger import Stranger, strange

pytestmark = pytest.mark.postgres_versions

RELATIONS = """
    SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE n.nspname = 'brain' AND c.relkind IN ('r', 'v')
"""
CALLS = """
    SELECT format('%s(%s)', p.oid::regproc,
                  (SELECT string_agg(format('NULL::%s', replace(format_type(type, -1),
                                                                'anyelement', 'text')), ', ')
                     FROM unnest(p.proargtypes::oid[]) type))
      FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'brain'
"""
PUBLIC = """
    SELECT p.oid::regproc::text FROM pg_proc p
     WHERE p.pronamespace = 'brain'::regnamespace
       AND EXISTS (SELECT FROM aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
                    WHERE a.grantee = 0)
     ORDER BY 1
"""
OWNERS = """
    SELECT DISTINCT owner::regrole::text FROM (
        SELECT relnamespace, relowner FROM pg_class
        UNION ALL SELECT pronamespace, proowner FROM pg_proc) o (namespace, owner)
     WHERE namespace = 'brain'::regnamespace
"""
VIEWS = {"brain.watches", "brain.system_problems", "brain.system_table_status"}
ON_RELATIONS = [
    "SELECT FROM {}",
    "SELECT * FROM {}",
    "COPY (SELECT * FROM {}) TO STDOUT",
]
ON_TABLES = [
    "INSERT INTO {} DEFAULT VALUES",
    "DELETE FROM {}",
    "TRUNCATE {}",
    "BEGIN; LOCK TABLE {} IN ACCESS SHARE MODE",
    "ALTER TABLE {} ADD COLUMN forged text",
    "DROP TABLE {}",
    "CREATE INDEX ON {} ((1))",
    "CREATE TABLE own.child () INHERITS ({})",
    "CREATE TABLE own.child (LIKE {})",
    "CREATE TRIGGER forged AFTER INSERT ON {} EXECUTE FUNCTION own.forged()",
    "CREATE RULE forged AS ON INSERT TO {} DO NOTHING",
    "GRANT ALL ON {} TO PUBLIC",
]
OTHERS = [
    "SET ROLE brain_owner",
    "SET session_replication_role = replica",
    "CREATE TABLE brain.forged ()",
    "CREATE FUNCTION brain.forged() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE OPERATOR brain.= (LEFTARG = text, RIGHTARG = text, FUNCTION = texteq)",
    "CREATE OR REPLACE FUNCTION brain.tick(OUT id bigint, OUT nonce bigint)"
    " LANGUAGE sql AS 'SELECT 1, 1'",
    "ALTER FUNCTION brain.tick SECURITY DEFINER",
    "DROP FUNCTION brain.capture_1 CASCADE",
    "ALTER SCHEMA brain RENAME TO forged",
    "SELECT nextval('brain.event_id')",
    "SELECT setval('brain.event_id', 1)",
    "ALTER SEQUENCE brain.event_id CACHE 32",
    "CREATE TABLE own.child (tick bigint REFERENCES brain.ticks)",
    "CREATE TRIGGER forged AFTER INSERT ON own.mine"
    " FOR EACH ROW EXECUTE FUNCTION brain.capture_1()",
    "CREATE TRIGGER forged AFTER INSERT ON mine_for_now"
    " FOR EACH ROW EXECUTE FUNCTION brain.capture_1()",
    "CREATE TRIGGER forged BEFORE INSERT ON own.mine"
    " FOR EACH ROW EXECUTE FUNCTION brain.complete_task()",
    'ALTER TABLE tasks DISABLE TRIGGER "!brain_1_row_1"',
    'DROP TRIGGER "!brain_1_row_1" ON tasks',
    "SELECT own.tick()",
    "SELECT pg_temp.tick()",
]
OWN = """
    CREATE TABLE own.mine (id text PRIMARY KEY, agent text, status text, progress float8);
    CREATE TEMP TABLE mine_for_now (LIKE own.mine);
    CREATE FUNCTION own.forged() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    SET check_function_bodies = off;
    CREATE FUNCTION own.tick() RETURNS bigint LANGUAGE sql AS 'SELECT id FROM brain.tick()';
    CREATE FUNCTION pg_temp.tick() RETURNS bigint LANGUAGE plpgsql
        AS 'BEGIN RETURN (SELECT id FROM brain.tick()); END';
"""
VIEW = "CREATE VIEW own.log AS SELECT * FROM brain.events"


@pytest.fixture
async def stranger(postgres: str, database: str) -> AsyncIterator[Stranger]:
    async with strange(postgres, database) as stranger:
        yield stranger


async def refused(session: asyncpg.Connection, statement: str) -> None:
    try:
        await session.execute(statement)
    except asyncpg.InsufficientPrivilegeError:
        if session.is_in_transaction():
            await session.execute("ROLLBACK")
        return
    pytest.fail(f"{statement} was not refused")


@pytest.mark.parametrize("may_publish", [False, True], ids=["", "but may publish"])
async def test_an_ordinary_role_has_no_rights_on_the_log(
    stranger: Stranger, may_publish: bool
) -> None:
    if may_publish:
        await stranger.let_publish()
    relations = [f"brain.{row[0]}" for row in await stranger.admin.fetch(RELATIONS)]
    tables = [relation for relation in relations if relation not in VIEWS]
    expected = {"events", "events_3", "nodes", "schema_versions", "ticks", "watched"}
    assert {f"brain.{name}" for name in expected} <= set(tables)
    session = await stranger.session()
    await session.execute(OWN)
    statements = [on.format(name) for on in ON_RELATIONS for name in relations]
    statements += [on.format(name) for on in ON_TABLES for name in tables]
    if may_publish:
        # With USAGE on the schema the view can be created, but not read.
        await session.execute(VIEW)
        statements.append("SELECT * FROM own.log")
    else:
        statements.append(VIEW)

    for statement in statements + OTHERS:
        await refused(session, statement)


async def test_everything_of_brain_belongs_to_the_role_that_cannot_log_in(
    connection: asyncpg.Connection,
) -> None:
    assert [row[0] for row in await connection.fetch(OWNERS)] == ["brain_owner"]


@pytest.mark.parametrize("may_publish", [False, True], ids=["", "but may publish"])
async def test_an_ordinary_role_calls_no_function_of_brain(
    stranger: Stranger, may_publish: bool
) -> None:
    if may_publish:
        await stranger.let_publish()
    calls = [row[0] for row in await stranger.admin.fetch(CALLS)]
    session = await stranger.session()
    assert len(calls) > 20

    for call in calls:
        if not (may_publish and call.startswith("brain.publish(")):
            await refused(session, f"SELECT {call}")


async def test_the_public_may_execute_no_function_of_brain(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        CREATE TABLE orders (id int PRIMARY KEY, state text);
        SELECT brain.watch('orders', 'orders', '{id,state}');
        SELECT brain.write_captures();
        """
    )

    executable = await connection.fetch(PUBLIC)
    generated = await connection.fetchval(
        "SELECT count(*) FROM pg_proc WHERE oid::regproc::text ~ '^brain.capture_[0-9]+$'"
    )

    assert executable == []
    assert generated == 14


async def test_a_function_that_the_public_may_execute_is_found(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        """
        CREATE FUNCTION brain.forgotten() RETURNS int LANGUAGE sql AS 'SELECT 1';
        GRANT EXECUTE ON FUNCTION brain.tick TO PUBLIC;
        """
    )

    assert [row[0] for row in await connection.fetch(PUBLIC)] == ["brain.forgotten", "brain.tick"]


async def test_rights_outside_the_schema_are_not_touched(connection: asyncpg.Connection) -> None:
    assert await connection.fetch("SELECT * FROM pg_default_acl") == []


async def test_a_role_that_may_publish_forges_no_change_of_a_row(stranger: Stranger) -> None:
    await stranger.let_publish()

    (event,) = await stranger.events(
        "SELECT brain.publish('tasks', 'task_completed', '{\"id\": \"a\"}')"
    )

    assert (event.operation, event.channel, event.key) == (Operation.PUBLISH, "tasks", None)


async def test_the_operation_of_a_message_is_not_for_its_publisher_to_choose(
    stranger: Stranger,
) -> None:
    await stranger.let_publish()
    session = await stranger.session()

    await refused(session, "SELECT brain.append('tasks', 'x', 'I', '[\"a\"]', '{}', NULL)")
    await session.execute("BEGIN; SELECT brain.publish('a', 'b')")
    await refused(session, "UPDATE brain.events SET channel = 'tasks'")


async def test_a_table_of_an_ordinary_role_is_logged_on_no_channel(stranger: Stranger) -> None:
    assert [] == await stranger.events(
        "CREATE TABLE own.tasks (LIKE public.tasks INCLUDING ALL)",
        "INSERT INTO own.tasks (id) VALUES ('forged')",
        "CREATE TEMP TABLE tasks (LIKE public.tasks INCLUDING ALL);"
        "INSERT INTO tasks (id) VALUES ('forged')",
        "CREATE TABLE own.tasks_too () INHERITS (own.tasks);"
        "INSERT INTO own.tasks_too (id) VALUES ('forged')",
    )
    await refused(await stranger.session(), "CREATE TABLE own.child () INHERITS (public.tasks)")


POLICIES = """
    ALTER TABLE things ENABLE ROW LEVEL SECURITY;
    CREATE POLICY inserted ON things FOR INSERT WITH CHECK (id < 10);
    CREATE POLICY visible ON things FOR SELECT USING (id = 1);
    CREATE POLICY changed ON things FOR UPDATE USING (id = 1);
"""


async def test_policies_hide_rows_from_their_writer_and_not_from_the_log(
    stranger: Stranger,
) -> None:
    await (await stranger.owner()).execute(POLICIES)
    await stranger.admin.execute("INSERT INTO things (id, name) VALUES (3, 'hidden')")

    events = await stranger.events(
        "INSERT INTO things (id, name) VALUES (1, 'mine')",
        "INSERT INTO things (id, name) VALUES (2, 'unseen')",
        "UPDATE things SET name = 'changed'",
        "DELETE FROM things",
    )

    assert "".join(event.operation.value for event in events) == "IIU"
    assert [parsed(event.data)["name"] for event in events] == ["mine", "unseen", "changed"]
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await stranger.events("INSERT INTO things (id) VALUES (10)")
