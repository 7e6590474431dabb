"""Columns of any type: what the type does cannot fail the writer."""

from __future__ import annotations

from uuid import UUID

import asyncpg
import pytest

from brain.message.event import Event, Operation
from tests.database.changes import logged_events
from tests.database.log_reading import keys, parsed

pytestmark = pytest.mark.postgres_versions

TYPES = """
    CREATE TYPE mood AS ENUM ('good', 'bad');
    CREATE TYPE pair AS (a int, b text);
    CREATE DOMAIN small AS int CHECK (VALUE < 100);
    CREATE DOMAIN smaller AS small CHECK (VALUE < 10);
    CREATE DOMAIN word AS text NOT NULL DEFAULT '';
    CREATE DOMAIN words AS word[];
    CREATE DOMAIN couple AS pair;
    CREATE TYPE span AS RANGE (subtype = float8);
"""
# The type of a column, a value, another value, and how the first one is logged.
VALUES = {
    "a domain": ("small", "1", "2", 1),
    "a domain over a domain": ("smaller", "1", "2", 1),
    "a domain over an array of a domain": ("words", "'{a,b}'", "'{}'", ["a", "b"]),
    "a domain over a composite": ("couple", "(1, 'x')", "(2, NULL)", {"a": 1, "b": "x"}),
    "a composite": ("pair", "(1, 'x')", "NULL", {"a": 1, "b": "x"}),
    "an array of composites": ("pair[]", "'{\"(1,x)\"}'", "'{NULL}'", [{"a": 1, "b": "x"}]),
    "an enum": ("mood", "'good'", "'bad'", "good"),
    "a range": ("int4range", "'[1,3)'", "'empty'", "[1,3)"),
    "a range of its own": ("span", "'[1.5,3)'", "'empty'", "[1.5,3)"),
    "a multirange": ("int4multirange", "'{[1,3)}'", "'{}'", "{[1,3)}"),
    "a nested array": ("int[][]", "'{{1,2},{3,4}}'", "'{}'", [[1, 2], [3, 4]]),
    "an array that begins elsewhere": ("int[]", "'[5:6]={1,2}'", "'{1,3}'", [1, 2]),
    "xml or text": ("text", "'<a>&amp;</a>'", "''", "<a>&amp;</a>"),
    "json, which has no equality": ("json", "'[1]'", "'[2]'", [1]),
    "a shape, which has no equality": ("point", "'(0,1)'", "'(0,2)'", "(0,1)"),
    "text search": ("tsvector", "'a b'", "''", "'a' 'b'"),
    "a path": ("jsonpath", "'$.a'", "'$.b'", '$."a"'),
    "an address": ("inet", "'::1/64'", "'10.0.0.1'", "::1/64"),
    "a uuid": ("uuid", f"'{UUID(int=1)}'", "NULL", str(UUID(int=1))),
    "a log position": ("pg_lsn", "'0/10'", "'0/11'", "0/10"),
    "a letter": ('"char"', "'a'", "'b'", "a"),
    "a name": ("name", "'a'", "'b'", "a"),
    "a transaction id": ("xid8", "'1'", "'2'", "1"),
    "a snapshot": ("pg_snapshot", "'1:2:'", "'1:3:'", "1:2:"),
}  # fmt: skip


async def logged(
    database: str, connection: asyncpg.Connection, type: str, value: str, other: str
) -> list[Event]:
    """Return the events of an insertion, an update and a deletion, and of an update of nothing."""
    await connection.execute(
        f"CREATE TABLE things (id int PRIMARY KEY, a {type}, b int);"
        "SELECT brain.watch('things', 'things', '{id,a}')"
    )
    return await logged_events(
        database,
        connection,
        f"INSERT INTO things VALUES (1, {value}, 0)",
        "UPDATE things SET b = 1",
        f"UPDATE things SET a = {value}",
        f"UPDATE things SET a = {other}",
        "DELETE FROM things",
    )


@pytest.mark.parametrize("kind", VALUES)
async def test_a_column_may_have_any_type(
    database: str, connection: asyncpg.Connection, kind: str
) -> None:
    type, value, other, shown = VALUES[kind]
    await connection.execute(TYPES)

    inserted, updated, deleted = await logged(database, connection, type, value, other)

    assert [event.omitted for event in (inserted, updated, deleted)] == [()] * 3
    assert parsed(inserted.data) == parsed(updated.old) == {"id": 1, "a": shown}
    assert updated.data == deleted.old
    assert updated.changed_columns() == ["a"]


EXTENSIONS = {
    "hstore": ("hstore", "'a=>1'", "'b=>2'", {"a": "1"}),
    "citext": ("citext", "'Ab'", "'aB'", "Ab"),
    "intarray": ("int[]", "'{2,1}'", "'{1,2}'", [2, 1]),
    "isn": ("isbn", "'0-393-04002-X'", "'1-4028-9462-7'", "0-393-04002-X"),
    "cube": ("cube", "'(1,2)'", "'(1,3)'", "(1, 2)"),
    "ltree": ("ltree", "'a.b'", "'a.c'", "a.b"),
}
NOT_FOR_ALL = """
    DO $$
    DECLARE
        function regprocedure;
    BEGIN
        FOR function IN SELECT objid FROM pg_depend
                         WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
                           AND classid = 'pg_proc'::regclass
                           AND refobjid = (SELECT oid FROM pg_extension WHERE extname = '{0}') LOOP
            EXECUTE format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC', function);
        END LOOP;
        REVOKE USAGE ON SCHEMA extensions FROM PUBLIC;
    END $$;
"""


@pytest.mark.parametrize("name", EXTENSIONS)
async def test_a_type_of_an_extension_whose_functions_others_may_not_execute(
    database: str, connection: asyncpg.Connection, name: str
) -> None:
    if not await connection.fetch("SELECT FROM pg_available_extensions WHERE name = $1", name):
        pytest.skip(f"this server does not have the extension {name}")
    await connection.execute(f"CREATE SCHEMA extensions; CREATE EXTENSION {name} SCHEMA extensions")
    await connection.execute(NOT_FOR_ALL.format(name))
    await connection.execute("SET search_path = public, extensions")
    type, value, other, shown = EXTENSIONS[name]

    inserted, updated, deleted = await logged(database, connection, type, value, other)

    if name == "hstore" and inserted.omitted:
        # PostgreSQL 15.20 asks for the right to execute a cast to JSON, as hstore has one.
        assert parsed(inserted.data) == {"id": 1}
        assert inserted.omitted == updated.omitted == ("a",)
        return
    assert parsed(inserted.data) == {"id": 1, "a": shown}
    assert updated.old == inserted.data
    assert deleted.old == updated.data != inserted.data
    assert updated.changed_columns() == ["a"]


# A value that its type cannot show: that of an enum whose label is gone.
MOOD = "CREATE TYPE mood AS ENUM ('good', 'bad')"
GONE = "DELETE FROM pg_enum WHERE enumtypid = 'mood'::regtype AND enumlabel = 'bad'"


async def test_a_value_whose_type_cannot_show_it_is_omitted(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        f"{MOOD}; CREATE TABLE things (id int PRIMARY KEY, a mood); CREATE TABLE kept (a mood);"
        "INSERT INTO kept VALUES ('bad');"
        "SELECT brain.watch('things', 'things', '{id,a}');" + GONE
    )

    inserted, updated, deleted = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES (1, 'good')",
        "UPDATE things SET a = (SELECT a FROM kept)",
        "DELETE FROM things",
    )

    assert [event.operation.value for event in (inserted, updated, deleted)] == ["I", "U", "D"]
    assert keys([inserted, updated, deleted]) == [[1]] * 3
    assert parsed(inserted.data) == {"id": 1, "a": "good"}
    assert (parsed(updated.data), updated.omitted) == ({"id": 1}, ("a",))
    assert (parsed(deleted.old), deleted.omitted) == ({"id": 1}, ("a",))
    assert updated.has_changed("a")


async def test_a_key_that_cannot_be_shown_resets_the_channel(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        f"{MOOD}; CREATE TABLE things (id mood PRIMARY KEY, a int); CREATE TABLE kept (a mood);"
        "INSERT INTO kept VALUES ('bad');"
        "SELECT brain.watch('things', 'things', '{id,a}');" + GONE
    )

    events = await logged_events(
        database,
        connection,
        "INSERT INTO things VALUES ('good', 1)",
        "UPDATE things SET id = (SELECT a FROM kept)",
        "DELETE FROM things",
    )

    assert [event.operation for event in events] == [
        Operation.INSERT,
        Operation.RESET,
        Operation.RESET,
    ]
    assert {event.channel for event in events} == {"things"}
    assert keys(events[1:]) == [None, None]
    assert "key is too large or cannot be shown" in parsed(events[1].data)
