"""Tables that are altered while other sessions write to them."""

from __future__ import annotations

import random

import asyncpg
import pytest

from tests.database.changes import changes
from tests.database.log_reading import rows_of

pytestmark = pytest.mark.postgres_versions


@pytest.mark.parametrize(
    "alteration",
    [
        "ADD COLUMN c text DEFAULT 'new'",
        "RENAME COLUMN a TO z",
        "DROP COLUMN a",
        "ALTER COLUMN a TYPE varchar(100)",
        "ALTER COLUMN a TYPE int USING 7",
        "ALTER COLUMN id TYPE bigint",
        "DROP COLUMN a, ADD COLUMN a jsonb DEFAULT '[1]'",
    ],
)
@pytest.mark.parametrize("timing", ["immediate", "deferred"])
async def test_a_session_that_has_written_before_goes_on_writing_after_the_table_was_altered(
    database: str, connection: asyncpg.Connection, alteration: str, timing: str
) -> None:
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a text, b text)")
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,a,b}', timing => $1)", timing
    )
    writer = await experienced_writer(database)
    await connection.execute(f"ALTER TABLE things {alteration}")

    logged = await changes(
        database,
        writer,
        "INSERT INTO things (id, b) VALUES (1, 'i')",
        "UPDATE things SET b = 'u'",
        "UPDATE things SET id = 3",
        "DELETE FROM things",
    )
    await writer.close()
    assert [change.operation for change in logged] == ["I", "U", "D", "U", "D"]
    assert logged[1].data["b"] == "u"
    assert [change.key for change in logged] == [[1], [1], [1], [3], [3]]


@pytest.mark.parametrize("key", ["id", "a, id"])
@pytest.mark.parametrize("alteration", ["RENAME COLUMN id TO key", "DROP COLUMN id"])
@pytest.mark.parametrize("timing", ["immediate", "deferred"])
async def test_without_a_column_of_the_key_each_transaction_resets_the_channel_once(
    database: str, connection: asyncpg.Connection, key: str, alteration: str, timing: str
) -> None:
    """No client could tell from an event which row it has lost."""
    await connection.execute(f"CREATE TABLE things (id int, a text, b text, PRIMARY KEY ({key}))")
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,a,b}', timing => $1)", timing
    )
    writer = await experienced_writer(database)
    await connection.execute("INSERT INTO things VALUES (1, 'x', 'x'), (2, 'x', 'x')")
    await connection.execute(f"ALTER TABLE things {alteration}")
    for regenerated in (False, True):
        if regenerated:
            await connection.execute("SELECT brain.write_captures()")
        logged = await changes(
            database,
            writer,
            f"UPDATE things SET b = '{regenerated}'",
            "BEGIN; INSERT INTO things (a, b) VALUES ('y', 'y'); UPDATE things SET b = 'z'; COMMIT"
            if "DROP" in alteration
            else "BEGIN; UPDATE things SET key = key + 10, b = 'z'; DELETE FROM things; ROLLBACK;"
            " UPDATE things SET key = key + 10, b = 'z'",
            f"UPDATE things SET b = '{regenerated}' WHERE false",
        )
        assert [change.operation for change in logged] == ["R", "R"]
    await writer.close()


async def test_the_next_slot_gets_its_turn_though_watched_tables_were_altered_or_dropped(
    database: str, connection: asyncpg.Connection
) -> None:
    """Otherwise the log would never be trimmed again."""
    for table in ("things", "others", "gone"):
        await connection.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, a text)")
        await connection.execute(f"SELECT brain.watch('{table}', '{table}', '{{id,a}}')")
    await connection.execute(
        """
        INSERT INTO things VALUES (1, 'a');
        ALTER TABLE things RENAME a TO b;
        ALTER TABLE others RENAME id TO key;
        DROP TABLE gone;
        """
    )
    former = await connection.fetchval("SELECT number FROM brain.current_block")
    await connection.execute("SELECT brain.rotate_slot('0')")
    assert await connection.fetchval("SELECT number FROM brain.current_block") == former + 1

    logged = await changes(
        database,
        connection,
        "INSERT INTO things VALUES (2, 'x')",
        "INSERT INTO others VALUES (2, 'x')",
    )
    assert [(change.operation, change.key) for change in logged] == [("I", [2]), ("R", None)]
    assert logged[0].data == {"id": 2, "a": None}


async def test_the_rows_of_an_altered_table_are_still_read(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, a text, b text)")
    await connection.execute("SELECT brain.watch('things', 'things', '{id,a,b}')")
    large = "x" * 300_000

    await connection.execute(f"INSERT INTO things VALUES (1, '{large}', 'y'), (2, 'z', 'y')")
    await connection.execute("ALTER TABLE things DROP COLUMN b")

    assert sorted(await rows_of(connection, "things"), reverse=True) == [
        '{"id" : 2, "a" : "z", "b" : null}',
        '{"id" : 1, "b" : null}',
    ]


async def experienced_writer(database: str) -> asyncpg.Connection:
    """Return a session with generic plans for all statements of the trigger function."""
    writer = await asyncpg.connect(database)
    for _ in range(7):
        await writer.execute("INSERT INTO things VALUES (1, 'a', 'b'), (2, 'c', 'd')")
        await writer.execute("UPDATE things SET b = 'x'; UPDATE things SET id = id + 10")
        await writer.execute("DELETE FROM things WHERE id = 11")
        await writer.execute("TRUNCATE things")
    return writer


def statement(chance: random.Random, columns: list[str]) -> str:
    """Return a random write to a table; {} stands for its name."""
    id, name = chance.randrange(6), chance.choice(columns)
    value = chance.choice(["NULL", "'1'", "'2'", "DEFAULT"])
    return chance.choice(
        [
            f"INSERT INTO {{}} (id, {name}) VALUES ({id}, {value}) ON CONFLICT DO NOTHING",
            f"INSERT INTO {{}} (id) VALUES ({id})",
            f"UPDATE {{}} SET {name} = {value}",
            f"UPDATE {{}} SET id = id + 1 WHERE id = {id}",
            f"DELETE FROM {{}} WHERE id = {id}",
            "TRUNCATE {}",
        ]
    )


def alteration(chance: random.Random, columns: list[str]) -> str:
    one, other = chance.choice(columns), chance.choice(columns)
    type = chance.choice(["text", "int", "varchar(9)", "jsonb", "numeric"])
    return "ALTER TABLE {} " + chance.choice(
        [
            f"ADD COLUMN {one} {type}",
            f"DROP COLUMN {one}",
            f"RENAME COLUMN {one} TO {other}",
            f"ALTER COLUMN {one} TYPE {type} USING NULL",
            f"ALTER COLUMN id TYPE {chance.choice(['int', 'bigint', 'smallint'])}",
        ]
    )


async def outcome(connection: asyncpg.Connection, statement: str) -> tuple[str, str]:
    try:
        return await connection.execute(statement), ""
    except asyncpg.PostgresError as error:
        return type(error).__name__, error.sqlstate or ""


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.one_version) for seed in (1, 2))]
)
async def test_writers_get_the_same_results_as_with_an_unwatched_table(
    database: str, connection: asyncpg.Connection, seed: int
) -> None:
    """Under hundreds of random alterations: same successes, same errors, same rows."""
    chance = random.Random(seed)
    columns = ["a", "b", "c", "d"]
    for table in ("things", "twins"):
        await connection.execute(
            f"CREATE TABLE {table} (id int PRIMARY KEY, a text, b int, c text)"
        )
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,a,b}', timing => $1)",
        chance.choice(["immediate", "deferred"]),
    )
    writers = [await asyncpg.connect(database) for _ in range(3)]
    for _ in range(300):
        if chance.random() < 0.15:
            step, session = alteration(chance, columns), connection
        else:
            step, session = statement(chance, columns), chance.choice(writers)
        result = await outcome(session, step.format("things"))
        assert result == await outcome(session, step.format("twins")), step
        if chance.random() < 0.05:
            # As when the log rotates to the next slot.
            await connection.execute("SELECT brain.write_capture(w) FROM brain.watched w")
    assert await rows(connection, "things") == await rows(connection, "twins")
    for writer in writers:
        await writer.close()


async def rows(connection: asyncpg.Connection, table: str) -> list[dict[str, object]]:
    return [dict(row) for row in await connection.fetch(f"SELECT * FROM {table} ORDER BY id")]
