from __future__ import annotations

import asyncpg
import pytest

from brain.message.event import Operation
from tests.database.changes import logged_events, rung
from tests.database.log_reading import parsed

pytestmark = pytest.mark.postgres_versions


async def watched_table(connection: asyncpg.Connection, definition: str, columns: str) -> None:
    await connection.execute(f"CREATE TABLE public.things ({definition})")
    await connection.execute("SELECT brain.watch('things', 'things', $1)", columns.split())


async def test_an_event_carries_the_listed_columns_and_nothing_else(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, shown text, secret text", "id shown")

    (event,) = await logged_events(
        database, connection, "INSERT INTO things VALUES (1, 'a', 'hidden')"
    )

    assert event.channel == "things"
    assert (event.key, event.data, event.old) == ("[1]", '{"id" : 1, "shown" : "a"}', None)


async def test_an_update_carries_the_whole_former_row(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a text, b text", "id a b")

    _, event = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, NULL, 'same')",
        "UPDATE things SET a = 'new'",
    )

    assert event.operation is Operation.UPDATE
    assert parsed(event.data) == {"id": 1, "a": "new", "b": "same"}
    assert parsed(event.old) == {"id": 1, "a": None, "b": "same"}
    assert event.changed_columns() == ["a"]


async def test_an_update_of_what_is_not_listed_is_not_logged(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a text, b text", "id a")

    events = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, 'a', 'b')",
        "UPDATE things SET b = 'c', a = 'a'",
        "UPDATE things SET a = 'x' WHERE id = 2",
    )

    assert [event.operation for event in events] == [Operation.INSERT]


async def test_a_deletion_carries_the_last_values(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a text, secret text", "id a")

    _, event = await logged_events(
        database, connection, "INSERT INTO things VALUES (1, 'a', 'b')", "DELETE FROM things"
    )

    assert event.operation is Operation.DELETE
    assert (event.key, event.data, event.old) == ("[1]", None, '{"id" : 1, "a" : "a"}')


async def test_a_change_of_the_key_is_a_deletion_and_an_update(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "a int, b int, c text, PRIMARY KEY (b, a)", "a c")

    _, gone, moved = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, 2, 'x')",
        "UPDATE things SET b = 3",
    )

    assert (gone.operation, gone.key) == (Operation.DELETE, "[2, 1]")
    assert (moved.operation, moved.key) == (Operation.UPDATE, "[3, 1]")
    assert parsed(moved.data) == parsed(gone.old) == {"a": 1, "c": "x"}


async def test_the_emptying_of_a_table_is_one_event(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY", "id")

    *_, event = await logged_events(
        database, connection, "INSERT INTO things VALUES (1), (2)", "TRUNCATE things"
    )

    assert event.operation is Operation.TRUNCATE
    assert (event.key, event.data, event.old) == (None, None, None)


async def test_columns_without_an_equality_do_not_fail_the_writer(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a json, b point", "id a b")

    _, event = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, '{}', '(1,2)')",
        """UPDATE things SET a = '{"x": 1}'""",
    )

    assert parsed(event.old) == {"id": 1, "a": {}, "b": "(1,2)"}
    assert event.changed_columns() == ["a"]


@pytest.mark.parametrize(
    "alteration",
    [
        "ALTER TABLE things ADD COLUMN c text DEFAULT 'new'",
        "ALTER TABLE things RENAME COLUMN a TO z",
        "ALTER TABLE things DROP COLUMN a",
        "ALTER TABLE things ALTER COLUMN a TYPE int USING 1",
        "ALTER TABLE things RENAME TO others; CREATE VIEW things AS SELECT * FROM others",
    ],
)
async def test_an_altered_table_never_fails_its_writer(
    database: str, connection: asyncpg.Connection, alteration: str
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a text, b text", "id a b")

    events = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, 'a', 'b')",
        alteration,
        "UPDATE things SET b = 'c'",
    )

    assert [event.operation for event in events] == [Operation.INSERT, Operation.UPDATE]
    assert set(parsed(events[1].data)) == {"id", "a", "b"}


async def test_a_table_of_more_than_fifty_columns_can_be_watched(
    database: str, connection: asyncpg.Connection
) -> None:
    names = [f"c{number}" for number in range(120)]
    await watched_table(
        connection,
        "id int PRIMARY KEY, " + ", ".join(f"{name} int DEFAULT 7" for name in names),
        " ".join(names),
    )

    (event,) = await logged_events(database, connection, "INSERT INTO things (id) VALUES (1)")

    assert parsed(event.data) == dict.fromkeys(names, 7)


async def test_names_that_need_quoting_are_quoted(
    database: str, connection: asyncpg.Connection
) -> None:
    table, key, column = 'it\'s "odd"', "a 'b'", "%s $x$"
    quoted = [
        await connection.fetchval("SELECT quote_ident($1)", name) for name in (table, key, column)
    ]
    await connection.execute("CREATE TABLE {} ({} int PRIMARY KEY, {} text)".format(*quoted))
    await connection.execute(
        "SELECT brain.watch($1::text::regclass, 'odd %s $x$', $2)", quoted[0], [key, column]
    )

    (event,) = await logged_events(database, connection, f"INSERT INTO {quoted[0]} VALUES (1, 'x')")

    assert event.channel == "odd %s $x$"
    assert parsed(event.data) == {"a 'b'": 1, "%s $x$": "x"}


async def test_a_business_trigger_that_writes_the_row_again_is_logged_in_order(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a int", "id a")
    await connection.execute(
        """
        CREATE FUNCTION again() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN UPDATE things SET a = NEW.a + 1 WHERE id = NEW.id AND NEW.a < 3; RETURN NULL; END $$;
        CREATE TRIGGER a_business AFTER INSERT OR UPDATE ON things
            FOR EACH ROW EXECUTE FUNCTION again();
        """
    )

    events = await logged_events(database, connection, "INSERT INTO things VALUES (1, 1)")

    assert [parsed(event.data)["a"] for event in events] == [1, 2, 3]


async def test_a_table_without_a_primary_key_is_refused(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.RaiseError, match="things has no primary key"):
        await watched_table(connection, "id int", "id")


async def test_a_column_that_does_not_exist_is_refused(connection: asyncpg.Connection) -> None:
    with pytest.raises(asyncpg.RaiseError, match="things has no column wrong"):
        await watched_table(connection, "id int PRIMARY KEY", "id wrong")


async def test_watching_again_changes_the_columns(
    database: str, connection: asyncpg.Connection
) -> None:
    await watched_table(connection, "id int PRIMARY KEY, a int, b int", "id a")
    await connection.execute("SELECT brain.watch('things', 'others', '{id,b}')")

    (event,) = await logged_events(database, connection, "INSERT INTO things VALUES (1, 2, 3)")

    assert (event.channel, parsed(event.data)) == ("others", {"id": 1, "b": 3})


async def test_a_writer_needs_no_rights_on_the_log(
    database: str, connection: asyncpg.Connection
) -> None:
    role = f"writer_{connection.get_server_pid()}"
    await connection.execute(f"CREATE ROLE {role}; GRANT INSERT, SELECT ON tasks TO {role}")
    try:
        (event,) = await logged_events(
            database,
            connection,
            f"SET ROLE {role}; INSERT INTO tasks (id) VALUES ('a'); RESET ROLE",
        )
        assert event.key == '["a"]'

        await connection.execute(f"SET ROLE {role}")
        for forbidden in (
            "SELECT * FROM brain.events",
            "INSERT INTO brain.events_0 SELECT * FROM brain.events",
            "SELECT brain.append('tasks', 'x', 'T', NULL, NULL, NULL)",
            "SELECT brain.tick()",
            "SELECT brain.watch('tasks', 'tasks', '{id,payload}')",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(forbidden)
    finally:
        await connection.execute(f"RESET ROLE; DROP OWNED BY {role}; DROP ROLE {role}")


async def test_a_hostile_search_path_does_not_reach_the_trigger(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE SCHEMA hostile;
        CREATE FUNCTION hostile.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'called'; END $$;
        CREATE FUNCTION hostile.json_build_object(text, integer) RETURNS json LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'called'; END $$;
        CREATE FUNCTION hostile.json_build_array(integer) RETURNS json LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'called'; END $$;
        CREATE FUNCTION hostile.equal(text, text) RETURNS boolean LANGUAGE plpgsql
            AS $$ BEGIN RAISE 'called'; END $$;
        CREATE OPERATOR hostile.= (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
        CREATE OPERATOR hostile.<> (LEFTARG = text, RIGHTARG = text, FUNCTION = hostile.equal);
        CREATE TABLE public.things (id int PRIMARY KEY);
        SELECT brain.watch('things', 'things', '{id}');
        SET search_path = hostile, pg_catalog, public;
        """
    )

    events = await logged_events(database, connection, "INSERT INTO things VALUES (1)")

    assert [event.data for event in events] == ['{"id" : 1}']


async def test_a_change_notifies_only_while_a_node_is_parked(
    database: str, connection: asyncpg.Connection
) -> None:
    notifications: list[str] = []
    sleeper = await asyncpg.connect(database)
    await sleeper.add_listener("brain", lambda *arguments: notifications.append(arguments[2]))

    await connection.execute("INSERT INTO tasks (id) VALUES ('no node is parked')")
    await sleeper.execute("SELECT 1")
    assert notifications == []

    await sleeper.execute("SELECT pg_advisory_lock_shared(5221, 2)")
    async with connection.transaction():
        await connection.execute("INSERT INTO tasks (id) VALUES ('one')")
        await connection.execute("INSERT INTO tasks (id) VALUES ('two')")
    await sleeper.execute("SELECT 1")
    assert notifications == ["brain"]
    await sleeper.close()


async def test_writers_that_look_at_the_same_time_do_not_ring_for_each_other(
    database: str, connection: asyncpg.Connection
) -> None:
    notifications: list[object] = []
    listener, checking = await asyncpg.connect(database), await asyncpg.connect(database)
    await listener.add_listener("brain", lambda *arguments: notifications.append(arguments[3]))
    await checking.execute("SELECT pg_advisory_lock(5221, 2)")  # as every writer does for a moment

    await connection.execute("INSERT INTO tasks (id) VALUES ('a')")
    await listener.execute("SELECT 1")

    assert notifications == []
    await checking.close()
    await listener.close()


async def test_a_statement_that_changes_nothing_notifies_no_node(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await rung(database, connection, "UPDATE tasks SET progress = 1") == [False]
