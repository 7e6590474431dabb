"""Large values are named in the event and left out, and never fail their writer."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.message.event import Event, Operation
from tests.database.changes import logged_events
from tests.database.log_reading import keys, parsed, rows_of

pytestmark = pytest.mark.postgres_versions

LIMIT = 256 * 1024
# A text that compresses well, and one that does not.
SQUEEZED = f"repeat('x', {LIMIT + 1})"
RANDOM = f"(SELECT string_agg(md5(n::text), '') FROM generate_series(0, {LIMIT // 32}) n)"
# The type of a column, and how its value is made of a text.
TYPES = {
    "text": ("text", "{}"),
    "varchar": ("varchar", "{}"),
    "a domain": ("long_text", "{}"),
    "bytea": ("bytea", "{}::bytea"),
    "json": ("json", "to_json({})"),
    "jsonb": ("jsonb", "to_jsonb({})"),
    "an array": ("text[]", "ARRAY['a', {}]"),
    "a composite": ("pair", "(1, {})::pair"),
    "a range": ("span", "span('', {})"),
}


@pytest.fixture
async def writer(core_database: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(core_database)
    await connection.execute(
        "CREATE TYPE pair AS (a int, b text); CREATE DOMAIN long_text AS text;"
        "CREATE TYPE span AS RANGE (subtype = text)"
    )
    yield connection
    await connection.close()


async def watch(writer: asyncpg.Connection, type: str, key: str = "int", options: str = "") -> None:
    await writer.execute(
        f"CREATE TABLE things (id {key} PRIMARY KEY, a {type}, b int, unlisted int);"
        f"SELECT brain.watch('things', 'things', '{{id,a,b}}'{options})"
    )


def operations(events: list[Event]) -> str:
    return "".join(event.operation.value for event in events)


async def rows(writer: asyncpg.Connection) -> list[str]:
    return await rows_of(writer, "things")


@pytest.mark.parametrize("text", [SQUEEZED, RANDOM], ids=["squeezed", "random"])
@pytest.mark.parametrize("kind", TYPES)
async def test_a_large_value_is_named_and_left_out(
    core_database: str, writer: asyncpg.Connection, kind: str, text: str
) -> None:
    type, value = TYPES[kind][0], TYPES[kind][1].format(text)
    await watch(writer, type)
    insert = f"INSERT INTO things VALUES (1, {value}, 0)"

    events = await logged_events(
        core_database,
        writer,
        insert,
        "UPDATE things SET b = 1",
        "UPDATE things SET a = NULL",
        f"UPDATE things SET a = {value}",
        "UPDATE things SET id = 2",
        "DELETE FROM things",
    )

    assert operations(events) == "IUUUDUD"
    inserted, updated, emptied, filled, gone, moved, deleted = events
    assert (inserted.data, inserted.omitted) == ('{"id" : 1, "b" : 0}', ("a",))
    assert (updated.data, updated.old) == ('{"id" : 1, "b" : 1}', '{"id" : 1, "b" : 0}')
    assert updated.omitted == ("a",)
    assert (emptied.data, emptied.omitted) == ('{"id" : 1, "a" : null, "b" : 1}', ())
    assert emptied.changed_columns() == ["a"]
    assert (filled.data, filled.omitted) == ('{"id" : 1, "b" : 1}', ("a",))
    assert filled.changed_columns() == ["a"]
    assert (gone.key, gone.old, gone.omitted) == ("[1]", '{"id" : 1, "b" : 1}', ("a",))
    assert (moved.key, moved.data, moved.omitted) == ("[2]", '{"id" : 2, "b" : 1}', ("a",))
    assert (deleted.old, deleted.omitted) == ('{"id" : 2, "b" : 1}', ("a",))
    logged = await writer.fetchval("SELECT max(octet_length(e::text)) FROM brain.events e")
    assert logged < 1000

    await writer.execute(insert)
    assert await rows(writer) == ['{"id" : 1, "b" : 0}']


@pytest.mark.parametrize("text", [SQUEEZED, RANDOM], ids=["squeezed", "random"])
@pytest.mark.parametrize("kind", TYPES)
async def test_an_update_of_a_large_value_alone_is_logged_and_one_of_nothing_is_not(
    core_database: str, writer: asyncpg.Connection, kind: str, text: str
) -> None:
    """Before PostgreSQL 17 it is not known of a value that its header shows to be large."""
    type, value = TYPES[kind]
    await watch(writer, type)
    await writer.execute(f"INSERT INTO things VALUES (1, {value.format(text)}, 0)")

    unchanged = await logged_events(
        core_database, writer, "UPDATE things SET unlisted = 1", "UPDATE things SET b = b"
    )
    changed = value.format(f"(reverse({text}) || '1')")
    (event,) = await logged_events(core_database, writer, f"UPDATE things SET a = {changed}")

    is_shown = text == RANDOM or kind in ("text", "varchar", "a domain", "bytea")
    is_unknown = is_shown and writer.get_server_version().major < 17
    assert operations(unchanged) == ("UU" if is_unknown else "")
    assert (event.data, event.omitted) == ('{"id" : 1, "b" : 0}', ("a",))
    assert event.changed_columns() == ["a"]


@pytest.mark.parametrize("bytes", [LIMIT, LIMIT + 1])
async def test_a_text_of_the_limit_is_there_and_one_of_a_byte_more_is_not(
    core_database: str, writer: asyncpg.Connection, bytes: int
) -> None:
    await watch(writer, "text")

    events = await logged_events(
        core_database,
        writer,
        f"INSERT INTO things VALUES (1, repeat('x', {bytes}))",
        "UPDATE things SET b = 1",
        "DELETE FROM things",
    )

    shown = {"id": 1, "a": "x" * bytes, "b": None} if bytes == LIMIT else {"id": 1, "b": None}
    omitted = () if bytes == LIMIT else ("a",)
    inserted, updated, deleted = events
    assert parsed(inserted.data) == parsed(updated.old) == shown
    assert parsed(updated.data) == parsed(deleted.old) == shown | {"b": 1}
    assert [event.omitted for event in events] == [omitted] * 3


async def test_a_watch_may_have_limits_of_its_own(
    core_database: str, writer: asyncpg.Connection
) -> None:
    await watch(writer, "text", options=", column_bytes => 10000")

    small, large = await logged_events(
        core_database,
        writer,
        "INSERT INTO things VALUES (1, repeat('x', 10000))",
        "INSERT INTO things VALUES (2, repeat('x', 10001))",
    )

    assert (small.omitted, large.omitted) == ((), ("a",))


async def test_of_a_row_over_the_limit_the_largest_values_are_left_out(
    core_database: str, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a text, b text, c text, d text);"
        "SELECT brain.watch('things', 'things', '{id,a,b,c,d}', row_bytes => 100000)"
    )

    events = await logged_events(
        core_database,
        writer,
        # 60,000 + 50,000 bytes are too many, 50,000 + 45,000 are not.
        "INSERT INTO things VALUES"
        " (1, repeat('a', 50000), repeat('b', 60000), repeat('c', 45000), 'd')",
        "UPDATE things SET b = NULL, d = 'e'",
        "UPDATE things SET a = NULL, c = 'c'",
        "DELETE FROM things",
    )
    inserted, updated, small, deleted = events

    assert inserted.omitted == ("b",)
    assert list(parsed(inserted.data)) == ["id", "a", "c", "d"]
    # Former values count too, and the largest of all go first.
    both = {**parsed(updated.data), **{f"old {n}": t for n, t in parsed(updated.old).items()}}
    assert sum(len(json.dumps(text)) for text in both.values()) <= 100_000
    assert "b" not in parsed(updated.old) and parsed(updated.data)["b"] is None
    assert {"b", "d"} <= set(updated.changed_columns())
    assert parsed(small.data) == {"id": 1, "a": None, "b": None, "c": "c", "d": "e"}
    assert (small.omitted, deleted.omitted) == ((), ())


async def test_a_row_of_the_default_limit_loses_nothing_of_what_filters_need(
    core_database: str, writer: asyncpg.Connection
) -> None:
    names = [f"c{number}" for number in range(200)]
    columns = ", ".join(f"{name} text DEFAULT repeat('x', 8000)" for name in names)
    await writer.execute(f"CREATE TABLE things (id int PRIMARY KEY, {columns}, a text)")
    await writer.execute("SELECT brain.watch('things', 'things', $1)", ["id", *names, "a"])

    (event,) = await logged_events(
        core_database, writer, "INSERT INTO things (id, a) VALUES (1, repeat('a', 9000))"
    )

    assert event.omitted == ("a",)
    assert set(parsed(event.data)) == {"id", *names}


async def test_a_large_key_resets_the_channel(
    core_database: str, writer: asyncpg.Connection
) -> None:
    await watch(writer, "text", key="text")

    events = await logged_events(
        core_database,
        writer,
        "INSERT INTO things VALUES (repeat('x', 100000), 'a')",
        "UPDATE things SET a = 'b'",
        "UPDATE things SET id = 'small'",
        "UPDATE things SET id = repeat('y', 100000)",
        "DELETE FROM things",
        "INSERT INTO things VALUES (repeat('x', 8188), 'a')",
    )

    assert [event.operation for event in events] == [Operation.RESET] * 5 + [Operation.INSERT]
    assert {event.channel for event in events} == {"things"}
    assert keys(events[:5]) == [None] * 5


@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("int[]", "array_fill(7, ARRAY[{}])"),
        ("int[]", "array_fill(NULL::int, ARRAY[{}])"),
        ("boolean[]", "array_fill(true, ARRAY[10, {} / 10])"),
        ("many", "array_fill(7, ARRAY[{}])"),
        ("text[]", "array_fill(repeat('x', 4), ARRAY[{}])"),
        ("text[]", "ARRAY[repeat('x', {} * 10)]"),
        ("text[]", "array_fill(NULL::text, ARRAY[{}])"),
        ("json", "to_json(repeat('x', {} * 2))"),
        ("jsonb", "to_jsonb(repeat('x', {} * 10))"),
        ("jsonb", "jsonb_build_object('a', repeat('x', {} * 10))"),
        ("jsonb", "(SELECT jsonb_agg(7) FROM generate_series(1, {}))"),
    ],
)
async def test_what_compresses_well_is_known_to_be_large_before_it_is_rendered(
    core_database: str, writer: asyncpg.Connection, type: str, value: str
) -> None:
    """PostgreSQL stores 1,500,000 nulls in two kilobytes."""
    await writer.execute("CREATE DOMAIN many AS int[]")
    await watch(writer, type)
    await writer.execute(f"INSERT INTO things VALUES (1, {value.format(150_000)}, 0)")
    size = await writer.fetchval(
        f"SELECT brain.size_expression('a', '{type}'::regtype::oid, {LIMIT})"
    )
    assert await writer.fetchval(f"SELECT {size} FROM things") > LIMIT

    events = await logged_events(
        core_database,
        writer,
        "UPDATE things SET b = 1",
        f"UPDATE things SET a = {value.format(20_000)}",
    )

    assert [event.omitted for event in events] == [("a",), ()]


@pytest.mark.one_version
@pytest.mark.parametrize(
    ("type", "value"),
    [
        ("text", "repeat('x', {})"),
        ("bytea", "decode(repeat('00', {}), 'hex')"),
        ("jsonb", "to_jsonb(repeat('x', {}))"),
        ("json", "to_json(repeat('x', {}))"),
        ("text[]", "ARRAY[repeat('x', {})]"),
    ],
)
async def test_no_value_is_too_large_for_its_writer(
    core_database: str, writer: asyncpg.Connection, type: str, value: str
) -> None:
    await watch(writer, type)

    events = await logged_events(
        core_database,
        writer,
        f"INSERT INTO things VALUES (1, {value.format(200 * 1024 * 1024)})",
        "UPDATE things SET b = 1",
        "DELETE FROM things",
    )

    assert operations(events) == "IUD"
    assert {event.omitted for event in events} == {("a",)}


@pytest.mark.parametrize("depth", [1_100, 5_000])
@pytest.mark.parametrize("type", ["json", "jsonb"])
async def test_json_may_be_nested_deeply(
    core_database: str, writer: asyncpg.Connection, type: str, depth: int
) -> None:
    await watch(writer, type)
    value = '{"a":[' * (depth // 2) + "1" + "]}" * (depth // 2)

    inserted, updated = await logged_events(
        core_database,
        writer,
        f"INSERT INTO things VALUES (1, '{value}')",
        "UPDATE things SET b = 1",
    )

    assert (inserted.omitted, updated.omitted) == ((), ())
    assert inserted.row is not None
    assert inserted.row.text("a").replace(" ", "") == value
    assert updated.changed_columns() == ["b"]
    assert await rows(writer) == [updated.data]


@pytest.mark.parametrize(
    "value",
    [
        r'{"a": "\u0000"}',
        r'{"a": "\ud800", "\udc00": "\ud800x"}',
        '{"a": 1, "a": 2, "a": {"b": 1, "b": 2}}',
        '{"a":\n1,\r\n\t"b":\r2}',
        "[1.10, 1e400, 0.1e-3, -0]",
        r'"\/\b\f\n\u00e9"',
        " 1 ",
    ],
)
async def test_json_is_logged_as_it_was_written(
    core_database: str, writer: asyncpg.Connection, value: str
) -> None:
    """Only line breaks between its parts become spaces."""
    await watch(writer, "json")
    literal = "'" + value + "'"

    inserted, updated = await logged_events(
        core_database,
        writer,
        f"INSERT INTO things VALUES (1, {literal}, 0)",
        "UPDATE things SET b = 1",
    )

    line = value.replace("\n", " ").replace("\r", " ")
    assert inserted.data == f'{{"id" : 1, "a" : {line}, "b" : 0}}'
    assert (updated.data, updated.old) == (f'{{"id" : 1, "a" : {line}, "b" : 1}}', inserted.data)
    assert await rows(writer) == [f'{{"id" : 1, "a" : {value}, "b" : 1}}']
    assert updated.changed_columns() == ["b"]
