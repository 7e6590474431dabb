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

NOW = "brain watch public.things --channel things --columns id,"
UNSEEN = (
    "a trigger is missing or disabled on public.things, so changes there are not seen:"
    f" this creates it: {NOW}a"
)


def drop_trigger(name: str) -> str:
    return f"""
        DO $$ BEGIN EXECUTE format('DROP TRIGGER "{name}_%s" ON things', (
            SELECT id FROM brain.watched WHERE channel = 'things')); END $$
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
    (problem,) = await problems(connection)
    assert problem == (
        f"table public.things was dropped, and what has its name by now is not watched: {NOW}a"
    )

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
        (
            "ALTER TABLE things RENAME a TO c",
            [f"public.things has changed: column a is called c: this watches it as it is: {NOW}c"],
        ),
        (
            "ALTER TABLE things DROP a",
            [
                "public.things has changed: no column a any more: this watches it as it is:"
                f" {NOW[:-1]}"
            ],
        ),
        (
            "ALTER TABLE things DROP a, ADD a text",
            [
                "public.things has changed: column a is text and was integer:"
                f" this watches it as it is: {NOW}a",
                "brain_reader may not read public.things, so Brain sends no snapshots of the"
                " channel things: GRANT SELECT (a) ON public.things TO brain_reader",
            ],
        ),
        (
            "ALTER TABLE things RENAME id TO c",
            [
                "public.things has changed: column id is called c: this watches it as it is:"
                " brain watch public.things --channel things --columns c,a",
                "the primary key of public.things is (c), and its events have the former one (id):"
                " brain watch public.things --channel things --columns c,a",
            ],
        ),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD PRIMARY KEY (id, a)",
            [
                "the primary key of public.things is (id, a), and its events have the former one"
                f" (id): {NOW}a"
            ],
        ),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey",
            [
                "public.things has no primary key any more, and its events have the former one"
                f" (id): add one, then: {NOW}a"
            ],
        ),
        ("ALTER TABLE things DISABLE TRIGGER USER", [UNSEEN]),
        (drop_trigger("!brain_1_row"), [UNSEEN]),
        (drop_trigger("!brain_2_truncate"), [UNSEEN]),
        (
            ROW_TRIGGER.format("things"),
            [
                "the AFTER ROW triggers of public.things (business) may write rows again, and with"
                f" the timing immediate the older row is logged last: this changes it: {NOW}a"
                " --timing deferred"
            ],
        ),
        (
            "ALTER TABLE things RENAME TO old; CREATE TABLE things (id int PRIMARY KEY, a int)",
            [
                "the name public.things is another table's by now, which is not watched; the"
                f" watched one is called public.old: brain unwatch public.old && {NOW}a"
            ],
        ),
        (
            "ALTER TABLE things RENAME TO old; CREATE TABLE things (id int PRIMARY KEY, a int);"
            " SELECT brain.watch('things', 'new', '{id}')",
            [
                "the name public.things is by now that of a table that is watched on the channel"
                " new; the one that is watched on things is called public.old: to have it known by"
                " that name: brain watch public.old --channel things --columns id,a"
            ],
        ),
        (
            "ALTER TABLE things RENAME TO old;"
            " CREATE TABLE things (id int PRIMARY KEY, a int, b int) PARTITION BY RANGE (id);"
            " ALTER TABLE things ATTACH PARTITION old FOR VALUES FROM (0) TO (10)",
            [
                "the name public.things is another table's by now, which is not watched; the"
                f" watched one is called public.old: brain unwatch public.old && {NOW}a"
            ],
        ),
        (
            "CREATE SCHEMA app; ALTER TABLE things SET SCHEMA app",
            [
                "table public.things was moved: it is app.things by now, and watched as before: to"
                " have it known by that name: brain watch app.things --channel things"
                " --columns id,a",
                "brain_reader may not read app.things, so Brain sends no snapshots of the channel"
                " things: GRANT USAGE ON SCHEMA app TO brain_reader",
            ],
        ),
        (
            "DROP TABLE things; CREATE TABLE things (id int PRIMARY KEY, a int)",
            [
                "table public.things was dropped, and what has its name by now is not watched:"
                f" {NOW}a"
            ],
        ),
        (
            "ALTER TABLE things ENABLE ROW LEVEL SECURITY",
            [
                "row-level security of public.things does not apply to its events and snapshots:"
                " each client that may read the channel things gets all rows: let nobody else read"
                " it, or give row rules: brain restrict",
                "row-level security of public.things hides rows from brain_reader, so Brain sends"
                ' no snapshots of the channel things: CREATE POLICY "!brain_reader" ON'
                " public.things FOR SELECT TO brain_reader USING (true)",
            ],
        ),
        (
            "CREATE TABLE child () INHERITS (things)",
            [
                "changes of the tables that inherit from public.things (public.child) are not seen:"
                " watch each on a channel of its own"
            ],
        ),
        (
            "ALTER TABLE things SET UNLOGGED",
            ["public.things is unlogged: a crash of the server empties it without an event"],
        ),
        (
            "DROP TABLE things",
            [
                "table public.things was dropped: this ends the watch:"
                " SELECT brain.unwatch_dropped()"
            ],
        ),
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

    assert await problems(connection) == [UNSEEN.replace("on public.things", "on public.low")]


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

    (problem,) = await problems(connection)
    assert problem.startswith("the AFTER ROW triggers of public.things (business) may write")
