"""Values that must never be in the log."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.changes import changes
from tests.database.log_reading import rows_of

pytestmark = pytest.mark.postgres_versions

SECRET = "hunter2"


async def logged(connection: asyncpg.Connection, text: str) -> bool:
    """Return True if the text occurs anywhere in the log."""
    found = await connection.fetchval(
        "SELECT EXISTS (SELECT FROM brain.events e WHERE strpos(e::text, $1) > 0)", text
    )
    return bool(found)


@pytest.mark.parametrize("timing", ["immediate", "deferred"])
async def test_what_is_not_listed_is_never_logged(
    database: str, connection: asyncpg.Connection, timing: str
) -> None:
    """Through insertions, key changes, deletions, oversized rows, renamings and alterations."""
    await connection.execute("CREATE TABLE things (id int PRIMARY KEY, shown text, secret text)")
    await connection.execute(
        "SELECT brain.watch('things', 'things', '{id,shown}', timing => $1)", timing
    )
    writer = await asyncpg.connect(database)
    for alteration in (
        "ADD COLUMN later text DEFAULT 'hunter2'",
        "RENAME COLUMN secret TO hidden",
        "ALTER COLUMN hidden TYPE varchar(1000)",
        "ADD COLUMN secret text DEFAULT 'hunter2'",
        "RENAME COLUMN shown TO seen",
        "ALTER COLUMN id TYPE bigint",
        "DROP COLUMN seen",
        "RENAME COLUMN id TO key",
    ):
        await write_secrets(writer, await column_names(connection))
        await connection.execute(f"ALTER TABLE things {alteration}")
        assert not await logged(connection, SECRET)
    await writer.close()
    assert await connection.fetchval("SELECT count(*) FROM brain.events") > 40
    assert not await logged(connection, "xxxxx")


async def column_names(connection: asyncpg.Connection) -> list[str]:
    names: list[str] = await connection.fetchval(
        "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute"
        " WHERE attrelid = 'things'::regclass AND attnum > 0 AND NOT attisdropped"
    )
    return names


async def write_secrets(writer: asyncpg.Connection, names: list[str]) -> None:
    key, *others = names
    await writer.execute(f"INSERT INTO things ({key}) VALUES (1), (2)")
    for name in others:
        value = "'" + "x" * 300_000 + "'" if name in ("shown", "seen") else f"'{SECRET}'"
        await writer.execute(f"UPDATE things SET {name} = {value}")
    await writer.execute(f"UPDATE things SET {key} = {key} + 10")
    await writer.execute(f"DELETE FROM things WHERE {key} = 11")
    await writer.execute("DELETE FROM things")


async def test_a_column_that_an_index_of_the_key_includes_is_not_logged(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "CREATE TABLE things (id int, secret text, PRIMARY KEY (id) INCLUDE (secret));"
        "SELECT brain.watch('things', 'things', '{id}')"
    )

    (change,) = await changes(database, connection, f"INSERT INTO things VALUES (1, '{SECRET}')")

    assert change.key == [1]
    assert not await logged(connection, SECRET)


async def test_an_unlisted_column_that_jsonb_cannot_hold_is_left_alone(
    database: str, connection: asyncpg.Connection
) -> None:
    """Neither the trigger, also for an oversized row, nor the snapshot of the table reads it."""
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a text, unlisted json);"
        "SELECT brain.watch('things', 'things', '{id,a}')"
    )
    large = "x" * 300_000
    nul = r'"\u0000"'

    (change,) = await changes(
        database, connection, f"INSERT INTO things VALUES (1, '{large}', '{nul}')"
    )

    assert change.data == {"id": 1}
    assert len(await rows_of(connection, "things")) == 1


@pytest.mark.parametrize("type", ["text", "jsonb", "text[]"])
async def test_a_large_value_is_not_logged_however_well_it_compresses(
    database: str, connection: asyncpg.Connection, type: str
) -> None:
    await connection.execute(f"CREATE TABLE things (id int PRIMARY KEY, a {type}, b int)")
    await connection.execute("SELECT brain.watch('things', 'things', '{id,a,b}')")
    # As PostgreSQL does after some executions; until then it decompresses values for the planner.
    await connection.execute("SET plan_cache_mode = force_generic_plan")
    letters = "x" * 300_000
    value = {"text": letters, "jsonb": f'"{letters}"', "text[]": f"{{{letters}}}"}[type]

    found = await changes(
        database,
        connection,
        f"INSERT INTO things VALUES (1, '{value}')",
        "UPDATE things SET b = 2",
        "UPDATE things SET a = NULL",
        f"UPDATE things SET a = '{value}'",
        "DELETE FROM things",
    )

    assert [change.operation for change in found] == ["I", "U", "U", "U", "D"]
    assert not await logged(connection, "xxxxx")
