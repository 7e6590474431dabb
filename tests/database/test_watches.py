"""The problems that `brain.watches` reports for a watch."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.changes import changes

pytestmark = pytest.mark.postgres_versions

THINGS = "CREATE TABLE things (id int PRIMARY KEY, a int, b int)"
PARTITIONED = """
    CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
    CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10);
"""
WATCH = "SELECT brain.watch('things', 'things', '{id,a}', timing => $1)"
ROW_TRIGGER = """
    CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER business AFTER UPDATE ON {} FOR EACH ROW EXECUTE FUNCTION nothing();
"""


async def problems(connection: asyncpg.Connection, channel: str = "things") -> list[str]:
    found: list[str] = await connection.fetchval(
        "SELECT problems FROM brain.watches WHERE channel = $1", channel
    )
    return found


async def test_the_channel_of_a_dropped_table_can_be_used_again(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    await connection.execute(WATCH, None)
    await connection.execute(f"DROP TABLE things; {THINGS}")
    assert await problems(connection) == ["the table was dropped"]

    await connection.execute(WATCH, None)

    assert await problems(connection) == []
    (change,) = await changes(database, connection, "INSERT INTO things VALUES (1, 2)")
    assert change.data == {"id": 1, "a": 2}


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ("ALTER TABLE things ADD c int", []),
        ("ALTER TABLE things RENAME b TO c", []),
        ("ALTER TABLE things RENAME TO others", []),
        ("ALTER TABLE things RENAME a TO c", ["no column a"]),
        ("ALTER TABLE things DROP a", ["no column a"]),
        ("ALTER TABLE things RENAME id TO c", ["no column id", "the primary key has changed"]),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD PRIMARY KEY (id, a)",
            ["the primary key has changed"],
        ),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey",
            ["the primary key has changed"],
        ),
        ("ALTER TABLE things DISABLE TRIGGER USER", ["a trigger is missing or disabled"]),
        ('DROP TRIGGER "!brain_1_row_14" ON things', ["a trigger is missing or disabled"]),
        ('DROP TRIGGER "!brain_2_truncate_14" ON things', ["a trigger is missing or disabled"]),
        (
            ROW_TRIGGER.format("things"),
            ["it has AFTER ROW triggers by now, which may write rows again"],
        ),
        ("DROP TABLE things", ["the table was dropped"]),
    ],
)
async def test_the_problems_of_a_watch_are_named(
    connection: asyncpg.Connection, change: str, found: list[str]
) -> None:
    await connection.execute(THINGS)
    await connection.execute(WATCH, "immediate")
    assert await problems(connection) == []

    await connection.execute(change)

    assert await problems(connection) == found
    assert await problems(connection, "tasks") == []


async def test_a_trigger_that_is_disabled_on_one_partition_is_found(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, None)
    assert await problems(connection) == []

    await connection.execute("ALTER TABLE low DISABLE TRIGGER ALL")

    assert await problems(connection) == ["a trigger is missing or disabled"]


async def test_watching_again_cures_what_is_wrong(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    await connection.execute(WATCH, None)
    await connection.execute(ROW_TRIGGER.format("things"))
    await connection.execute(
        "ALTER TABLE things RENAME a TO z; ALTER TABLE things RENAME id TO key;"
        "ALTER TABLE things DISABLE TRIGGER ALL"
    )
    assert len(await problems(connection)) == 4

    await connection.execute("SELECT brain.watch('things', 'things', '{key,z}')")

    assert await problems(connection) == []
    (change,) = await changes(database, connection, "INSERT INTO things VALUES (1, 2)")
    assert change == ("I", [1], {"key": 1, "z": 2})


async def test_a_row_trigger_that_is_added_to_one_partition_is_found(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(PARTITIONED)
    await connection.execute(WATCH, None)
    await connection.execute(ROW_TRIGGER.format("low"))

    assert await problems(connection) == [
        "it has AFTER ROW triggers by now, which may write rows again"
    ]
