"""What brain.watch finds out at the call: a refusal, or a warning with the way out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.database.changes import logged_events
from tests.postgres import as_role, ordinary_role

pytestmark = pytest.mark.postgres_versions

THINGS = "CREATE TABLE things (id int PRIMARY KEY, a int, b text)"
WATCH = "SELECT brain.watch('things', 'things', '{id,a}')"
WATCH_DEFERRED = "SELECT brain.watch('things', 'things', '{id,a}', timing => 'deferred')"
WATCH_IMMEDIATE = WATCH_DEFERRED.replace("deferred", "immediate")
WATCH_REPLICATED = "SELECT brain.watch('things', 'things', '{id,a}', replicated => true)"
NOW = "brain watch public.things --channel things --columns id,a"


async def changes(
    database: str, connection: asyncpg.Connection, *statements: str
) -> list[tuple[str, str | None, str | None]]:
    events = await logged_events(database, connection, *statements)
    rows = [event for event in events if event.channel in ("things", "low")]
    return [(event.operation.value, event.key, event.data) for event in rows]


async def warnings(connection: asyncpg.Connection, *statements: str) -> list[str]:
    found: list[str] = []

    def listen(_: object, message: asyncpg.PostgresLogMessage) -> None:
        if message.severity_en == "WARNING":
            found.append(message.message)

    connection.add_log_listener(listen)
    for statement in statements:
        await connection.execute(statement)
    connection.remove_log_listener(listen)
    return found


async def known_problems(connection: asyncpg.Connection) -> list[str]:
    found: list[str] = await connection.fetchval(
        "SELECT problems FROM brain.watches WHERE channel = 'things'"
    )
    return found


@pytest.mark.parametrize(
    ("definition", "reason", "way_out"),
    [
        ("VIEW v AS SELECT * FROM things", "is a view", "(public.things), or define a feed"),
        ("VIEW v AS SELECT * FROM inner_view", "is a view", "(public.others, public.things), or"),
        ("VIEW v AS SELECT 1 AS id", "is a view", "reads from, or define a feed"),
        ("MATERIALIZED VIEW v AS SELECT * FROM things", "is a materialized view", "a feed"),
        ("FOREIGN TABLE v (id int) SERVER elsewhere", "is a foreign table", "watch it in the"),
        ("SEQUENCE v", "is no table", ""),
    ],
)
async def test_what_is_no_table_is_refused_with_the_reason_and_the_way_out(
    connection: asyncpg.Connection, definition: str, reason: str, way_out: str
) -> None:
    await connection.execute(
        f"""
        {THINGS}; CREATE TABLE others (id int);
        CREATE VIEW inner_view AS SELECT things.id FROM things JOIN others USING (id);
        CREATE FOREIGN DATA WRAPPER nothing; CREATE SERVER elsewhere FOREIGN DATA WRAPPER nothing;
        CREATE {definition};
        """
    )
    with pytest.raises(asyncpg.RaiseError) as error:
        await connection.execute("SELECT brain.watch('v', 'x', '{id}')")

    assert str(error.value).startswith(f"public.v cannot be watched: it {reason}")
    assert way_out in str(error.value)


async def test_a_partition_of_a_watched_table_is_refused(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);"
        "CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5)"
    )
    await connection.execute(WATCH)

    for partition in ("low", "lowest"):
        with pytest.raises(asyncpg.RaiseError) as error:
            await connection.execute(f"SELECT brain.watch('{partition}', 'x', '{{id}}')")
        assert str(error.value) == (
            f"public.{partition} cannot be watched: it is a partition of public.things, which is"
            " watched on the channel things, its own changes too: subscribe to that, or end it"
            " first: brain unwatch public.things"
        )


@pytest.mark.parametrize(
    ("statements", "warning"),
    [
        (
            "ALTER TABLE things SET UNLOGGED",
            "public.things is unlogged: a crash of the server empties it without an event",
        ),
        (
            "CREATE TABLE child () INHERITS (things)",
            "changes of the tables that inherit from public.things (public.child) are not seen:"
            " watch each on a channel of its own",
        ),
        (
            "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD c jsonb, ADD PRIMARY KEY (id, c)",
            "the key of public.things may be larger than 8192 bytes of JSON (c jsonb): clients get"
            " a reset of the channel things in place of the change of such a row",
        ),
        (
            "CREATE DOMAIN code AS varchar(9000);"
            "ALTER TABLE things DROP CONSTRAINT things_pkey, ADD c int[], ADD d code,"
            " ADD PRIMARY KEY (c)",
            "the key of public.things may be larger than 8192 bytes of JSON (c integer[]): clients"
            " get a reset of the channel things in place of the change of such a row",
        ),
        (
            "CREATE TYPE mood AS ENUM ('good'); CREATE FUNCTION mood_json(mood) RETURNS json"
            " LANGUAGE sql AS 'SELECT NULL::json';"
            "CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);"
            "CREATE DOMAIN humour AS mood;"
            "ALTER TABLE things DROP a, ADD a humour[]",
            "casts to json are not used for the columns of public.things (a:"
            " public.mood_json(public.mood)): their values are sent as the text that PostgreSQL"
            " prints",
        ),
    ],
)
async def test_what_works_with_a_limit_is_a_warning_and_no_problem_later(
    connection: asyncpg.Connection, statements: str, warning: str
) -> None:
    await connection.execute(f"{THINGS}; {statements}")

    assert await warnings(connection, WATCH) == [warning]
    assert await known_problems(connection) == []


async def test_an_ordinary_table_has_no_warning(connection: asyncpg.Connection) -> None:
    await connection.execute(
        "CREATE TABLE things (id text, code varchar(50), a int, PRIMARY KEY (id, code))"
    )
    assert await warnings(connection, WATCH) == []


async def test_immediate_events_beside_row_triggers_are_a_warning(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(
        f"""
        {THINGS};
        CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
        CREATE TRIGGER " first" AFTER UPDATE ON things FOR EACH ROW EXECUTE FUNCTION nothing();
        """
    )
    assert await warnings(connection, WATCH) == []
    (warning,) = await warnings(connection, WATCH_IMMEDIATE)

    assert warning == (
        'the AFTER ROW triggers of public.things (" first") may write rows again, and with the'
        f" timing immediate the older row is logged last: this changes it: {NOW} --timing deferred"
    )


async def test_sessions_without_triggers_are_a_warning(connection: asyncpg.Connection) -> None:
    await connection.execute(THINGS)
    name = await connection.fetchval("SELECT current_database()")
    await connection.execute(f"ALTER DATABASE {name} SET session_replication_role = replica")

    assert await warnings(connection, WATCH) == [
        "the triggers of public.things do not fire in sessions with session_replication_role ="
        f" replica, which is a setting of this database: this changes it: {NOW} --replicated"
    ]
    assert await warnings(connection, WATCH_REPLICATED) == []


async def test_a_watched_partition_under_a_watched_parent_is_a_warning(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);"
        "CREATE TABLE low PARTITION OF things FOR VALUES FROM (0) TO (10);"
        "SELECT brain.watch('low', 'low', '{id}')"
    )

    assert await warnings(connection, WATCH) == [
        "partitions of public.things are watched as well (public.low on the channel low), so their"
        " changes are sent twice: brain unwatch public.low"
    ]
    assert len(await changes(database, connection, "INSERT INTO things VALUES (1)")) == 2


@pytest.mark.parametrize("watch", [WATCH, WATCH_DEFERRED, WATCH_REPLICATED])
async def test_a_watched_table_can_be_attached_to_a_watched_table(
    database: str, connection: asyncpg.Connection, watch: str
) -> None:
    watch_partition = watch.replace("things", "low")
    await connection.execute(
        "CREATE TABLE things (id int PRIMARY KEY, a int) PARTITION BY RANGE (id);"
        f"CREATE TABLE low (id int PRIMARY KEY, a int); {watch}; {watch_partition};"
        "ALTER TABLE things ATTACH PARTITION low FOR VALUES FROM (0) TO (10)"
    )
    (problem,) = await known_problems(connection)
    assert problem.endswith("brain unwatch public.low")

    await connection.execute("SELECT brain.unwatch('low')")

    assert await known_problems(connection) == []
    assert await changes(database, connection, "INSERT INTO low VALUES (1, 2)") == [
        ("I", "[1]", '{"id" : 1, "a" : 2}')
    ]


@asynccontextmanager
async def watching_role(postgres: str, database: str) -> AsyncIterator[asyncpg.Connection]:
    """Yield a connection of a role that may watch, and owns nothing."""
    async with ordinary_role(postgres) as (role, admin):
        await admin.execute(f"GRANT brain_owner TO {role}")
        connection = await asyncpg.connect(as_role(database, role))
        yield connection
        await connection.close()
        owner = await asyncpg.connect(database)
        await owner.execute(f"DROP OWNED BY {role} CASCADE")
        await owner.close()


async def test_missing_rights_are_named(
    postgres: str, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    async with watching_role(postgres, database) as watcher:
        role = await watcher.fetchval("SELECT current_user")
        with pytest.raises(asyncpg.InsufficientPrivilegeError) as error:
            await watcher.execute(WATCH)
        grant = f"GRANT TRIGGER ON public.things TO {role}"
        assert str(error.value) == (
            f"role {role} may not create triggers on public.things: its owner can allow it: {grant}"
        )
        await connection.execute(grant)

        (warning,) = await warnings(watcher, WATCH)

        grant = "GRANT SELECT (id, a) ON public.things TO brain_reader"
        assert warning == (
            "brain_reader may not read public.things, so Brain sends no snapshots of the channel"
            f" things: {grant}"
        )
        assert await known_problems(connection) == [warning]
        await connection.execute(grant)
        assert await known_problems(connection) == []
        await connection.execute("SELECT brain.unwatch('things')")
        await connection.execute(grant)
        assert await warnings(watcher, WATCH) == []
        await connection.execute(grant.replace("GRANT", "REVOKE").replace(" TO ", " FROM "))
        assert await known_problems(watcher) == [warning]
        await connection.execute("SELECT brain.unwatch('things')")


async def test_a_schema_that_may_not_be_used_is_named_and_hides_no_other_problem(
    postgres: str, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        f"""
        {THINGS}; {WATCH};
        CREATE SCHEMA closed; CREATE TABLE closed.things (id int PRIMARY KEY);
        SELECT brain.watch('closed.things', 'closed', '{{id}}');
        ALTER TABLE things DISABLE TRIGGER USER;
        """
    )
    async with watching_role(postgres, database) as watcher:
        await connection.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        await connection.execute("REVOKE USAGE ON SCHEMA closed FROM brain_reader")

        watches = await watcher.fetch("SELECT channel, problems FROM brain.watches")
        problems = {each["channel"]: each["problems"] for each in watches}
        found = await watcher.fetch("SELECT name, problem FROM brain.system_problems")

    assert any(
        "GRANT USAGE ON SCHEMA closed TO brain_reader" in each for each in problems["closed"]
    )
    assert any("a trigger is missing or disabled" in each for each in problems["things"])
    assert [each["problem"] for each in found if each["name"] == "public.tasks"] == []


async def test_row_security_that_is_ignored_is_a_warning(connection: asyncpg.Connection) -> None:
    await connection.execute(f"{THINGS}; ALTER TABLE things ENABLE ROW LEVEL SECURITY")
    start = "row-level security of public.things does not apply to its events and snapshots: "
    by_word = WATCH.replace(")", ", row_security => 'ignored')")
    by_rules = WATCH.replace(")", """, rules => '{"id": "sub"}')""")

    assert await warnings(connection, by_word) == [
        f"{start}each client that may read the channel things gets all rows: let nobody else read"
        " it, or give row rules: brain restrict"
    ]
    assert await warnings(connection, by_rules) == [
        f"{start}its row rules decide who gets which rows"
    ]
    assert await known_problems(connection) == []


async def test_a_channel_that_changes_hands_is_a_warning(connection: asyncpg.Connection) -> None:
    await connection.execute(f"{THINGS}; CREATE TABLE others (id int PRIMARY KEY)")
    others = "SELECT brain.watch('others', 'things', '{id}')"
    handed_over = (
        "the channel things was that of table public.things: those who subscribe to it get rows of"
        " public.others from now on"
    )

    assert await warnings(connection, WATCH, "SELECT brain.unwatch('things')", WATCH) == []
    assert await warnings(connection, "SELECT brain.unwatch('things')", others) == [handed_over]
    assert await warnings(connection, others) == []
    await connection.execute("DROP TABLE others")
    assert await warnings(connection, WATCH) == [
        handed_over.replace("public.things", "x")
        .replace("others", "things")
        .replace("x", "public.others")
    ]
    await connection.execute(f"DROP TABLE things; {THINGS}")
    assert await warnings(connection, WATCH) == []


async def test_watching_again_in_another_way_is_a_warning(connection: asyncpg.Connection) -> None:
    await connection.execute(THINGS)

    assert await warnings(connection, WATCH, WATCH) == []
    assert await warnings(connection, "SELECT brain.watch('things', 'things', '{b,id}')") == [
        "table public.things was watched with other columns: no longer sent: a; new: b"
    ]
    assert await warnings(connection, "SELECT brain.watch('things', 'others', '{id,b}')") == [
        "table public.things was watched on the channel things, which gets no changes any more"
    ]


async def test_other_types_of_messages_than_before_are_a_warning(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(THINGS)
    typed = "SELECT brain.watch('things', 'things', '{id,a}', '%s')"
    placed = typed % '{"insert": "placed", "delete": "gone"}'

    assert await warnings(connection, placed, placed) == []
    assert await warnings(connection, typed % '{"delete": "removed", "update": "moved"}') == [
        "table public.things was watched with other types of messages: insert was placed, and is"
        " the default; update was the default, and is moved; delete was gone, and is removed"
    ]
    assert await warnings(connection, typed % "{}") == [
        "table public.things was watched with other types of messages: update was moved, and is the"
        " default; delete was removed, and is the default"
    ]


async def test_a_type_whose_functions_only_its_owner_may_execute_is_shown(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TYPE secret;
        CREATE FUNCTION secret_in(cstring) RETURNS secret LANGUAGE internal IMMUTABLE AS 'textin';
        CREATE FUNCTION secret_out(secret) RETURNS cstring LANGUAGE internal IMMUTABLE AS 'textout';
        CREATE TYPE secret (INPUT = secret_in, OUTPUT = secret_out, LIKE = text);
        CREATE TABLE things (id int PRIMARY KEY, a secret);
        REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA public FROM PUBLIC;
        """
    )
    assert await warnings(connection, WATCH) == []

    assert await changes(database, connection, "INSERT INTO things VALUES (1, 'x')") == [
        ("I", "[1]", '{"id" : 1, "a" : "x"}')
    ]


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE INDEX ON things (a)",
        "DROP TABLE things",
        "ALTER TABLE things ADD c int",
        "TRUNCATE things",
    ],
)
async def test_after_a_deferred_event_ddl_in_the_same_transaction_has_a_way_out(
    database: str, connection: asyncpg.Connection, statement: str
) -> None:
    await connection.execute(f"{THINGS}; {WATCH_DEFERRED}")
    insert = "INSERT INTO things VALUES (1, 2)"
    with pytest.raises(asyncpg.ObjectInUseError, match="pending trigger events"):
        await connection.execute(f"{insert}; {statement}")

    logged = await changes(
        database, connection, f"{insert}; SET CONSTRAINTS ALL IMMEDIATE; {statement}"
    )

    assert logged[0] == ("I", "[1]", '{"id" : 1, "a" : 2}')
