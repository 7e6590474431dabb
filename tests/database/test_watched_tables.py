"""Kinds of tables that can be watched, and the events that are logged for them."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.changes import changes, logged_events, rung
from tests.database.log_reading import events_after, reading

pytestmark = pytest.mark.postgres_versions

PARTITIONED = """
    CREATE TABLE things (id int, a text, PRIMARY KEY (id)) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10);
    CREATE TABLE high (a text, dropped int, id int NOT NULL);
    ALTER TABLE high DROP COLUMN dropped;
    ALTER TABLE things ATTACH PARTITION high FOR VALUES FROM (10) TO (20);
"""
WATCH = "SELECT brain.watch('things', 'things', '{id,a}', timing => $1)"

both_timings = pytest.mark.parametrize("timing", ["immediate", "deferred"])


@pytest.mark.parametrize("key", ["a, b, c", "c, b, a", "b, a, c"])
async def test_the_values_of_a_key_come_in_the_order_of_the_key(
    database: str, connection: asyncpg.Connection, key: str
) -> None:
    await connection.execute(
        f"CREATE TABLE things (c int, x int, a int, b int, PRIMARY KEY ({key}));"
        "SELECT brain.watch('things', 'things', '{x,b}')"
    )
    values = {"a": 1, "b": 2, "c": 3}

    inserted, deleted, updated = await changes(
        database,
        connection,
        "INSERT INTO things (a, b, c) VALUES (1, 2, 3)",
        "UPDATE things SET a = 10",
    )

    names = key.split(", ")
    assert inserted.key == deleted.key == [values[name] for name in names]
    assert updated.key == [{**values, "a": 10}[name] for name in names]


@both_timings
async def test_a_change_through_a_parent_or_of_a_partition_is_logged(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, timing)
    statements = (
        "INSERT INTO things VALUES (1, 'a'), (11, 'b')",
        "INSERT INTO low VALUES (2, 'c')",
        "INSERT INTO high (id, a) VALUES (12, 'd')",
        "UPDATE things SET a = 'e' WHERE id IN (1, 11)",
        "UPDATE high SET a = 'f' WHERE id = 12",
        "DELETE FROM things WHERE id = 1",
        "DELETE FROM high WHERE id = 12",
    )

    logged = await changes(database, connection, *statements)

    assert [(change.operation, change.key) for change in logged] == [
        ("I", [1]), ("I", [11]), ("I", [2]), ("I", [12]), ("U", [1]), ("U", [11]), ("U", [12]),
        ("D", [1]), ("D", [12]),
    ]  # fmt: skip
    assert logged[3].data == {"id": 12, "a": "d"}
    await connection.execute("DELETE FROM things")
    assert await rung(database, connection, *statements) == [True] * len(statements)


@both_timings
async def test_a_row_that_moves_to_another_partition_is_a_deletion_and_an_insertion(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, timing)
    await connection.execute("INSERT INTO things VALUES (1, 'a')")

    there = "UPDATE things SET id = 11, a = 'b' WHERE id = 1"
    back = "UPDATE things SET id = 1 WHERE id = 11"

    assert await changes(database, connection, there) == [
        ("D", [1], None), ("I", [11], {"id": 11, "a": "b"}),
    ]  # fmt: skip
    assert await rung(database, connection, back, there) == [True, True]


@both_timings
async def test_a_partition_that_is_attached_later_is_watched_and_a_detached_one_is_not(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, timing)
    await connection.execute(
        """
        CREATE TABLE attached (a text, id int PRIMARY KEY);
        ALTER TABLE things ATTACH PARTITION attached FOR VALUES FROM (20) TO (30);
        CREATE TABLE created PARTITION OF things FOR VALUES FROM (30) TO (40)
            PARTITION BY RANGE (id);
        CREATE TABLE beneath PARTITION OF created FOR VALUES FROM (30) TO (40);
        ALTER TABLE things DETACH PARTITION low;
        """
    )

    logged = await changes(
        database,
        connection,
        "INSERT INTO attached VALUES ('a', 21)",
        "INSERT INTO things VALUES (31, 'b')",
        "UPDATE beneath SET a = 'c'",
        "INSERT INTO low VALUES (1, 'not watched')",
    )

    assert [(change.operation, change.key) for change in logged] == [
        ("I", [21]), ("I", [31]), ("U", [31]),
    ]  # fmt: skip


ATTACHED = (
    "partitions of public.things are watched as well (public.single on the channel single), so"
    " their changes are sent twice: brain unwatch public.single"
)


@both_timings
async def test_a_watched_table_can_be_attached_to_a_watched_one_and_detached_again(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    """While it is attached its changes are those of both; each watch keeps its triggers."""
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, timing)
    await connection.execute(
        """
        CREATE TABLE single (a text, id int PRIMARY KEY);
        SELECT brain.watch('single', 'single', '{id}');
        """
    )
    attach = "ALTER TABLE things ATTACH PARTITION single FOR VALUES FROM (20) TO (30)"
    write = "INSERT INTO single VALUES ('a', 21); UPDATE things SET a = 'b'; DELETE FROM single"
    problems = "SELECT problems FROM brain.watches WHERE channel IN ('things', 'single')"

    for _ in range(2):
        before = await logged_events(database, connection, "INSERT INTO single VALUES ('a', 21)")
        await connection.execute(f"DELETE FROM single; {attach}")
        assert [row[0] for row in await connection.fetch(problems)] == [[ATTACHED], []]
        attached = await logged_events(database, connection, *write.split("; "))
        emptied = await logged_events(database, connection, "TRUNCATE single", "TRUNCATE things")
        await connection.execute("ALTER TABLE things DETACH PARTITION single")
        assert [row[0] for row in await connection.fetch(problems)] == [[], []]
        detached = await logged_events(database, connection, "INSERT INTO single VALUES ('a', 21)")
        await connection.execute("DELETE FROM single")

        assert [event.channel for event in before] == ["single"]
        assert sorted((event.channel, event.operation.value) for event in attached) == [
            ("single", "D"), ("single", "I"), ("things", "D"), ("things", "I"), ("things", "U"),
        ]  # fmt: skip
        assert {event.key for event in attached} == {"[21]"}
        # The truncation of the parent is one of each of its partitions.
        assert sorted((event.channel, event.operation.value) for event in emptied) == [
            ("single", "T"), ("single", "T"), ("things", "T"),
        ]  # fmt: skip
        assert [event.channel for event in detached] == ["single"]

    await connection.execute(f"{attach}; SELECT brain.unwatch('single')")
    (event,) = await logged_events(database, connection, "INSERT INTO single VALUES ('a', 21)")
    assert event.channel == "things"
    await connection.execute("SELECT brain.unwatch('things')")
    await connection.execute("SELECT brain.watch('single', 'single', '{id}')")
    (event,) = await logged_events(database, connection, "INSERT INTO things VALUES (22, 'a')")
    assert event.channel == "single"


@both_timings
async def test_a_truncate_of_a_partitioned_table_is_logged_and_that_of_a_partition_is_not(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, timing)
    await connection.execute("INSERT INTO things VALUES (1), (11)")

    assert await changes(database, connection, "TRUNCATE low", "TRUNCATE things") == [
        ("T", None, None)
    ]
    assert await rung(database, connection, "TRUNCATE things") == [True]


async def test_an_oversized_value_of_a_partition_is_omitted(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, None)
    large = "x" * 300_000

    (event,) = await logged_events(database, connection, f"INSERT INTO high VALUES ('{large}', 11)")

    assert (event.data, event.omitted) == ('{"id" : 11}', ("a",))


async def test_a_partition_can_be_watched_by_itself(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute("SELECT brain.watch('low', 'low', '{id}')")

    logged = await changes(
        database,
        connection,
        "INSERT INTO things VALUES (1), (11)",
        "UPDATE things SET id = 12 WHERE id = 1",
    )

    assert logged == [("I", [1], {"id": 1}), ("D", [1], None)]


async def test_changes_of_tables_that_inherit_from_a_watched_one_are_not_logged(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TABLE things (id int PRIMARY KEY, a text);
        CREATE TABLE children (b text) INHERITS (things);
        SELECT brain.watch('things', 'things', '{id,a}');
        """
    )

    logged = await changes(
        database,
        connection,
        "INSERT INTO things VALUES (1)",
        "INSERT INTO children VALUES (2)",
        "UPDATE things SET a = 'x'",
        "DELETE FROM things",
    )

    assert [(change.operation, change.key) for change in logged] == [
        ("I", [1]), ("U", [1]), ("D", [1]),
    ]  # fmt: skip


async def test_a_watch_may_name_the_types_of_its_messages(
    database: str, connection: asyncpg.Connection
) -> None:
    types = '{"insert": "made", "update": "it\'\'s \\"changed\\"", "truncate": "emptied"}'
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a int);"
        f"SELECT brain.watch('things', 'things', '{{id,a}}', '{types}')"
    )
    async with reading(database) as log:
        start = await log.tick()
        for statement in (
            "INSERT INTO things VALUES (1)",
            "UPDATE things SET a = 2",
            "UPDATE things SET id = 3",
            "DELETE FROM things",
            "TRUNCATE things",
        ):
            await connection.execute(statement)
        logged = [event.type for event in await events_after(log, start)]

    changed = 'it\'s "changed"'
    assert logged == ["made", changed, None, changed, None, "emptied"]


async def test_a_writer_with_an_old_snapshot_logs_changes_by_the_triggers_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    """Nothing that the trigger function does depends on rows that the writer cannot see."""
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a int, b int)")
    writer = await asyncpg.connect(database)
    await writer.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM tasks")
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,a}'); ALTER TABLE things DROP a"
    )

    logged = await changes(database, writer, "INSERT INTO things VALUES (1); COMMIT")

    assert logged == [("I", [1], {"id": 1, "a": None})]
    await writer.close()
