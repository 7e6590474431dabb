"""Watching and unwatching tables: timing of events, cleanup, and refused arguments."""

from __future__ import annotations

import asyncpg
import pytest

from tests.database.changes import changes
from tests.database.log_reading import events_after, keys, reading

pytestmark = pytest.mark.postgres_versions

THINGS = "CREATE TABLE things (id int PRIMARY KEY, a int, b int)"
WATCH = "SELECT brain.watch('things', 'things', '{id,a}', timing => $1)"
# The change of one row changes the next one.
DOMINO = """
    CREATE FUNCTION push() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN UPDATE things SET a = a + 100 WHERE id = NEW.id + 1 AND NEW.a < 100; RETURN NULL; END $$;
    CREATE TRIGGER domino AFTER UPDATE ON things FOR EACH ROW EXECUTE FUNCTION push();
"""


async def timing(connection: asyncpg.Connection) -> str:
    name = await connection.fetchval("SELECT timing FROM brain.watches WHERE channel = 'things'")
    assert isinstance(name, str)
    return name


@pytest.mark.parametrize("requested", [None, "deferred", "immediate"])
async def test_where_triggers_write_other_rows_the_last_event_of_each_shows_how_it_ended(
    database: str, connection: asyncpg.Connection, requested: str | None
) -> None:
    """Row 1 changes row 2 between the statement's own change of row 2 and its event."""
    await connection.execute(
        f"{THINGS}; {DOMINO}; INSERT INTO things VALUES (1, 0), (2, 0), (3, 0)"
    )
    await connection.execute(WATCH, requested)
    is_deferred = requested != "immediate"
    assert await timing(connection) == ("deferred" if is_deferred else "immediate")

    logged = await changes(database, connection, "UPDATE things SET a = a + 1")

    rows = await connection.fetch("SELECT id, a FROM things ORDER BY id")
    last = {change.data["id"]: change.data["a"] for change in logged}
    # Only deferred events show the final rows.
    assert (last == {row["id"]: row["a"] for row in rows}) is is_deferred


async def test_a_change_of_a_table_without_row_triggers_of_its_own_is_logged_at_once(
    database: str, connection: asyncpg.Connection
) -> None:
    """BEFORE triggers, statement triggers and foreign keys do not defer it."""
    await connection.execute(
        f"""
        {THINGS};
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RETURN NEW; END $$;
        CREATE TRIGGER one BEFORE UPDATE ON things FOR EACH ROW EXECUTE FUNCTION nothing();
        CREATE TRIGGER two AFTER UPDATE ON things EXECUTE FUNCTION nothing();
        ALTER TABLE things ADD FOREIGN KEY (b) REFERENCES things ON UPDATE CASCADE;
        """
    )
    await connection.execute("SELECT brain.watch('things', 'things', '{id,a,b}')")
    assert await timing(connection) == "immediate"

    await connection.execute("INSERT INTO things VALUES (1, 0, NULL), (2, 0, 1)")
    logged = await changes(
        database, connection, "UPDATE things SET a = 1, id = CASE id WHEN 1 THEN 10 ELSE id END"
    )
    assert logged[-1] == ("U", [2], {"id": 2, "a": 1, "b": 10})


async def test_a_row_trigger_of_a_single_partition_defers(connection: asyncpg.Connection) -> None:
    await connection.execute(
        f"""
        CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);
        CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10);
        {DOMINO.replace("ON things", "ON low")}
        """
    )
    await connection.execute(WATCH, None)

    assert await timing(connection) == "deferred"


async def test_deferred_events_keep_the_order_of_the_changes(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    await connection.execute(WATCH, "deferred")

    logged = await changes(
        database,
        connection,
        "INSERT INTO things VALUES (1, 0), (2, 0); UPDATE things SET a = 1 WHERE id = 2;"
        "UPDATE things SET a = 2; DELETE FROM things WHERE id = 1",
    )

    assert [(change.operation, change.key) for change in logged] == [
        ("I", [1]), ("I", [2]), ("U", [2]), ("U", [1]), ("U", [2]), ("D", [1]),
    ]  # fmt: skip


async def test_a_table_that_is_unwatched_keeps_nothing_of_the_watch(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    functions = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'capture%'"
    before = await connection.fetchval(functions)
    for requested in ("immediate", "deferred"):
        await connection.execute(WATCH, requested)
        async with reading(database) as log:
            start = await log.tick()
            await connection.execute("INSERT INTO things VALUES (1)")
            await connection.execute("SELECT brain.unwatch('things')")
            await connection.execute("UPDATE things SET a = 2; DELETE FROM things; TRUNCATE things")

            events = await events_after(log, start)
            assert [event.channel for event in events] == ["things", "brain.watches"]
            assert keys(events[:1]) == [[1]]
        assert await connection.fetchval(functions) == before
        assert not await connection.fetch(
            "SELECT FROM pg_trigger WHERE tgrelid = 'things'::regclass"
            " UNION ALL SELECT FROM brain.watches WHERE channel = 'things'"
        )
    with pytest.raises(asyncpg.RaiseError, match="things is not watched"):
        await connection.execute("SELECT brain.unwatch('things')")


async def test_a_partitioned_table_is_unwatched_with_its_partitions(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10)"
    )
    await connection.execute(WATCH, "deferred")
    await connection.execute("SELECT brain.unwatch('things')")

    assert not await connection.fetch(
        "SELECT FROM pg_trigger WHERE tgname LIKE '!brain%'"
        " AND tgrelid IN ('things'::regclass, 'low'::regclass)"
    )


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ("NULL, 'x', '{id}'", "NULL cannot be watched: there is no such table"),
        ("'passing', 'x', '{id}'", "passing cannot be watched: it is a temporary table"),
        ("'brain.ticks', 'x', '{id}'", "brain.ticks cannot be watched: it is one of Brain's own"),
        ("'pg_class', 'x', '{id}'", "pg_class cannot be watched: it is one of PostgreSQL's own"),
        ("'things_pkey', 'x', '{id}'", "public.things_pkey cannot be watched: it is no table"),
        ("'things', 'x', '{id,id}'", "column id of public.things is listed more than once"),
        ("'keyless', 'x', '{id}'", "table public.keyless has no primary key"),
        ("'things', 'x', '{id,wrong,a,bad}'", "things has no column wrong, bad; it has id, a, b"),
        ("'things', 'x', '{id,NULL}'", "table public.things has no column NULL"),
        ("'things', 'x', '{ctid}'", "table public.things has no column ctid"),
        ("'things', 'x', '{}'", "no column of public.things is listed"),
        ("'things', 'x', NULL", "no column of public.things is listed"),
        ("'things', '', '{id}'", "the channel for public.things has no name"),
        ("'things', NULL, '{id}'", "the channel for public.things has no name"),
        ("'things', 'brain.everyone', '{id}'", "the channel brain.everyone is Brain's own"),
        ("'things', 'x', '{id}', '{\"made\": \"x\"}'", "delete and truncate; not made"),
        ("'things', 'x', '{id}', '{\"insert\": 1}'", "delete and truncate; not insert"),
        ("'things', 'x', '{id}', '{\"update\": \"\"}'", "delete and truncate; not update"),
        ("'things', 'x', '{id}', timing => 'later'", "timing is immediate or deferred, not later"),
    ],
)  # fmt: skip
async def test_what_cannot_be_watched_is_refused(
    connection: asyncpg.Connection, arguments: str, complaint: str
) -> None:
    await connection.execute(
        f"{THINGS}; CREATE TABLE keyless (id int); CREATE VIEW view AS SELECT * FROM things;"
        "CREATE TEMP TABLE passing (id int PRIMARY KEY)"
    )
    with pytest.raises(asyncpg.RaiseError) as error:
        await connection.execute(f"SELECT brain.watch({arguments})")
    assert complaint in str(error.value)
    assert not await connection.fetch(
        "SELECT FROM brain.watches WHERE relation = to_regclass('things')"
    )


async def test_a_virtual_column_which_triggers_do_not_see_is_refused(
    connection: asyncpg.Connection,
) -> None:
    if connection.get_server_version().major < 18:
        kind, complaint = "STORED", None
    else:
        kind, complaint = "VIRTUAL", "triggers do not see the virtual column a of public.things"
    await connection.execute(
        f"CREATE TABLE things (id int PRIMARY KEY, a int GENERATED ALWAYS AS (id * 2) {kind})"
    )
    if complaint is None:
        await connection.execute(WATCH, None)
    else:
        with pytest.raises(asyncpg.RaiseError, match=complaint):
            await connection.execute(WATCH, None)
