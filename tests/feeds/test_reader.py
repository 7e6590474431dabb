from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import orjson
import pytest

from brain.database.connection import opened_pool
from brain.database.migrations import migrate
from brain.errors import SnapshotTooLarge
from brain.feeds.reader import CHANNEL, FeedReader
from tests.database.log_reading import events_after, reading
from tests.postgres import new_database
from tests.schemas import every_schema

pytestmark = pytest.mark.postgres_versions

DOCUMENT = Path(__file__).parents[2] / "docs" / "feeds.md"
GOOD = "SELECT jsonb '1'"
FEEDS = (
    "adw-monitor adw-state queue routes system-status webhook-status workflow-history workflows"
).split()


@pytest.fixture
async def reader(database: str) -> AsyncIterator[FeedReader]:
    async with opened_pool(database) as pool:
        yield FeedReader(pool, most_bytes=1000, timeout_seconds=4)


async def state_of(
    connection: asyncpg.Connection, name: str, argument: str | None = None
) -> object:
    text = await connection.fetchval("SELECT brain.feed($1, $2)", name, argument)
    return orjson.loads(text)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ("NULL, $$SELECT jsonb '1'$$, '{a}'", "at most 63 lower-case letters"),
        ("'', $$SELECT jsonb '1'$$, '{a}'", "at most 63 lower-case letters"),
        ("'Queue', $$SELECT jsonb '1'$$, '{a}'", "not 'Queue'"),
        ("'a/b', $$SELECT jsonb '1'$$, '{a}'", "not 'a/b'"),
        ("'a_b', $$SELECT jsonb '1'$$, '{a}'", "not 'a_b'"),
        ("E'a\nb', $$SELECT jsonb '1'$$, '{a}'", "at most 63 lower-case letters"),
        ("repeat('a', 64), $$SELECT jsonb '1'$$, '{a}'", "at most 63 lower-case letters"),
        ("'channel', $$SELECT jsonb '1'$$, '{a}'", "that address is taken"),
        ("'x', $$SELECT jsonb '1'$$, '{}'", "at least one channel"),
        ("'x', $$SELECT jsonb '1'$$, NULL", "at least one channel"),
        ("'x', $$SELECT jsonb '1'$$, '{a,NULL}'", "at least one channel"),
        ("'x', $$SELECT jsonb '1'$$, ARRAY['']", "at least one channel"),
        ("'x', NULL, '{a}'", "the feed x has no query"),
        ("'x', ' ; ', '{a}'", "the feed x has no query"),
        ("'x', 'SELECT 1', '{a}'", "has to return jsonb, not integer"),
        ("'x', $$SELECT json '1'$$, '{a}'", "has to return jsonb, not json"),
        ("'x', $$SELECT jsonb '1', jsonb '2'$$, '{a}'", "must return only one column"),
        ("'x', $$SELECT jsonb '1' UNION ALL SELECT '2'$$, '{a}'", "more than one row"),
        ("'x', 'SELECT x FROM nowhere', '{a}'", 'relation "nowhere" does not exist'),
        ("'x', 'DELETE FROM tasks RETURNING to_jsonb(id)', '{a}'", "syntax error"),
        ("'x', $$SELECT jsonb '1') + (SELECT 1; DELETE FROM tasks$$, '{a}'", "syntax error"),
        ("'x', 'SELECT brain.feed($1)', '{a}'", "with takes_argument => true"),
        ("'x', $$SELECT jsonb '1'$$, '{a}', true", "does not use \\$1"),
        ("'x', 'SELECT to_jsonb($2)', '{a}', true", "does not use \\$1"),
        ("'x', $$SELECT jsonb '1'$$, '{a}', argument_is_key => true", "no argument that could be"),
        ("'x', $$SELECT jsonb '1'$$, '{a}', ignored_keys => NULL", "must not contain NULL"),
    ],
)
async def test_an_invalid_definition_is_refused_with_the_reason(
    connection: asyncpg.Connection, arguments: str, reason: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=re.sub(r"[()]", ".", reason)):
        await connection.execute(f"SELECT brain.define_feed({arguments})")
    assert await connection.fetchval("SELECT count(*) FROM brain.feeds") == len(FEEDS)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        (GOOD, 1),
        (f"{GOOD} ;\n", 1),
        (f"{GOOD} -- and a remark", 1),
        ("WITH a AS (SELECT 2 AS n) SELECT to_jsonb(n) FROM a", 2),
        ("VALUES (jsonb '3')", 3),
        ("SELECT to_jsonb(id) FROM tasks", None),
        ("SELECT NULL::jsonb", None),
        ("SELECT to_jsonb('a; $1'::text) WHERE true", "a; $1"),
    ],
)
async def test_the_state_of_a_feed_is_the_result_of_its_query(
    connection: asyncpg.Connection, query: str, expected: object
) -> None:
    await connection.execute("SELECT brain.define_feed('x', $1, '{a}')", query)
    assert await state_of(connection, "x") == expected


@pytest.mark.parametrize("argument", ["1", "'; DROP TABLE tasks; --", "$1", "", "a\\'b"])
async def test_an_argument_is_a_value_and_nothing_else(
    connection: asyncpg.Connection, argument: str
) -> None:
    await connection.execute(
        "SELECT brain.define_feed('x', 'SELECT to_jsonb($1)', '{a}', takes_argument => true)"
    )
    assert await state_of(connection, "x", argument) == argument
    with pytest.raises(asyncpg.UndefinedObjectError, match="no feed x that takes no argument"):
        await state_of(connection, "x")
    with pytest.raises(asyncpg.UndefinedObjectError, match="no feed queue that takes an argument"):
        await state_of(connection, "queue", argument)


async def test_an_event_is_published_when_a_feed_is_defined_changed_or_dropped(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute("SELECT brain.define_feed('x', $1, '{a}')", GOOD)
        await connection.execute("SELECT brain.define_feed('x', $1, '{b}')", GOOD)
        await connection.execute("SELECT brain.drop_feed('x')")
        events = await events_after(log, start)

    assert {(event.channel, event.row and event.row.string("name")) for event in events} == {
        (CHANNEL, "x")
    }
    assert [event.type for event in events] == ["feed_defined", "feed_defined", "feed_dropped"]
    with pytest.raises(asyncpg.UndefinedObjectError, match="there is no feed x"):
        await connection.execute("SELECT brain.drop_feed('x')")


async def test_definitions_are_read_as_they_were_made(
    reader: FeedReader, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "SELECT brain.define_feed('x', 'SELECT to_jsonb($1);', '{a,b}', true, true, '{k}')"
    )
    definitions = await reader.definitions()

    assert sorted(definitions) == sorted([*FEEDS, "x"])
    found = definitions["x"]
    assert (found.name, found.query, found.channels) == ("x", "SELECT to_jsonb($1)", ("a", "b"))
    assert (found.takes_argument, found.argument_is_key, found.ignored_keys) == (True, True, ("k",))
    assert definitions["adw-state"].argument_is_key
    assert not definitions["queue"].takes_argument


async def test_states_that_differ_in_ignored_keys_have_the_same_etag(
    reader: FeedReader, connection: asyncpg.Connection
) -> None:
    async def etag(query: str) -> str:
        await connection.execute(
            "SELECT brain.define_feed('x', $1, '{a}', ignored_keys => '{seen,at}')", query
        )
        state = await reader.state("x", None)
        assert state is not None
        return state.etag

    one = await etag("""SELECT jsonb '{"n": 1, "at": 1, "seen": 1}'""")
    assert await etag("""SELECT jsonb '{"at": 2, "n": 1}'""") == one
    assert await etag("""SELECT jsonb '{"at": 1, "seen": 1, "n": 2}'""") != one
    assert await etag("""SELECT jsonb '["seen"]'""") != await etag("SELECT jsonb '[]'")
    assert await etag("SELECT jsonb '1'") != await etag("SELECT jsonb '2'")


async def test_a_state_that_is_too_large_is_not_fetched(
    reader: FeedReader, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "SELECT brain.define_feed('x', $1, '{a}', takes_argument => true)",
        "SELECT to_jsonb(repeat('x', $1::int))",
    )
    state = await reader.state("x", "998")
    assert state is not None
    assert len(state.text) == 1000
    with pytest.raises(SnapshotTooLarge, match="the feed x has 1001 bytes"):
        await reader.state("x", "999")


@pytest.mark.parametrize(
    ("name", "argument"),
    [
        ("nothing", None),
        ("queue", "1"),
        ("adw-state", None),
        ("adw-state", "\0"),
        ("adw-state", "a" * 256),
    ],
)
async def test_an_unknown_feed_or_argument_has_no_state(
    reader: FeedReader, name: str, argument: str | None
) -> None:
    assert await reader.state(name, argument) is None


async def test_callers_at_the_same_time_share_one_query(reader: FeedReader) -> None:
    one, *others = await asyncio.gather(*(reader.shared_state("queue", None) for _ in range(50)))

    assert all(other is one for other in others)
    assert await reader.shared_state("queue", None) is not one


async def test_the_order_of_a_state_is_the_same_whatever_the_order_of_the_rows(
    connection: asyncpg.Connection,
) -> None:
    async def ids(name: str, key: str, list_key: str | None) -> list[object]:
        state = await state_of(connection, name)
        if list_key is not None:
            assert isinstance(state, dict)
            state = state[list_key]
        assert isinstance(state, list)
        return [row[key] for row in state]

    feeds = [
        ("workflows", "id", None),
        ("routes", "path", None),
        ("workflow-history", "id", "workflows"),
        ("adw-monitor", "adw_id", "workflows"),
        ("queue", "queue_id", "phases"),
    ]
    found = []
    for order in ("n", "-n"):
        await connection.execute(
            f"""
            BEGIN;
            DELETE FROM workflows; DELETE FROM routes; DELETE FROM workflow_history;
            DELETE FROM adw_states; DELETE FROM phase_queue;
            CREATE OR REPLACE TEMP VIEW n AS
            SELECT n FROM generate_series(1, 50) n ORDER BY {order};
            INSERT INTO workflows (id, name, start_time) SELECT n, n, '2026-01-01' FROM n;
            INSERT INTO routes (path) SELECT '/' || n FROM n;
            INSERT INTO workflow_history (id, name, status, ended_at)
            SELECT n, n, 'failed', '2026-01-01' FROM n;
            INSERT INTO adw_states (adw_id) SELECT n FROM n;
            INSERT INTO phase_queue (queue_id, issue_number, phase) SELECT n, n, n FROM n;
            COMMIT;
            """
        )
        found.append([await ids(*feed) for feed in feeds])

    assert found[0] == found[1]
    assert all(len(each) == 50 for each in found[0])


async def test_an_update_sets_updated_at_unless_the_writer_does(
    connection: asyncpg.Connection,
) -> None:
    touched = "SELECT updated_at = now() FROM routes"
    await connection.execute("INSERT INTO routes (path, updated_at) VALUES ('/', '2020-01-01')")
    for statement, is_touched in (
        ("UPDATE routes SET path = path", False),
        ("UPDATE routes SET method = 'POST'", True),
        ("UPDATE routes SET method = 'PUT', updated_at = '2020-01-02'", False),
    ):
        async with connection.transaction():
            await connection.execute(statement)
            assert await connection.fetchval(touched) is is_touched


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO workflows (name, status) VALUES ('a', 'odd')",
        "INSERT INTO workflows (name, details) VALUES ('a', '[]')",
        "INSERT INTO routes (path, method) VALUES ('/', 'get')",
        "INSERT INTO workflow_history (name, status) VALUES ('a', 'running')",
        "INSERT INTO workflow_history (name, status, duration) VALUES ('a', 'failed', 'NaN')",
        "INSERT INTO adw_states (status) VALUES ('odd')",
        "INSERT INTO adw_states (backend_port) VALUES (65536)",
        "INSERT INTO phase_queue (issue_number, phase, status) VALUES ('1', 'a', 'odd')",
        "INSERT INTO phase_queue_state VALUES (false)",
        "UPDATE system_status SET overall_status = 'odd'",
        "UPDATE webhook_status SET status = 'odd'",
    ],
)
async def test_a_value_that_dashboards_do_not_know_is_refused(
    connection: asyncpg.Connection, statement: str
) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute(statement)


async def test_tables_of_the_same_names_stay_as_they_are(postgres: str) -> None:
    async with new_database(postgres) as url:
        connection = await asyncpg.connect(url)
        await connection.execute(
            """
            CREATE TABLE routes (id int PRIMARY KEY);
            CREATE TABLE workflows (id text PRIMARY KEY, name text, status text,
                                    start_time timestamptz, details jsonb);
            CREATE VIEW phase_queue AS SELECT 1 AS one;
            CREATE TABLE webhook_status (is_only bool, status text, details jsonb,
                                         updated_at timestamptz);
            """
        )
        await migrate(url, every_schema())
        feeds = await connection.fetch("SELECT name FROM brain.feeds ORDER BY 1")
        await connection.execute("INSERT INTO routes VALUES (1); UPDATE routes SET id = 2")
        await connection.execute(
            "INSERT INTO workflows VALUES ('a'); UPDATE workflows SET name = 'x'"
        )
        await connection.execute("INSERT INTO webhook_status VALUES (true); TABLE phase_queue")
        assert await connection.fetchval("SELECT count(*) FROM webhook_status") == 1
        await connection.close()

    lacking = {"routes", "queue", "webhook-status"}
    assert [feed["name"] for feed in feeds] == [name for name in FEEDS if name not in lacking]


async def test_the_statements_of_the_document_run_and_return_what_it_prints(
    connection: asyncpg.Connection,
) -> None:
    text = DOCUMENT.read_text()
    await connection.execute("CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric)")
    await connection.execute("INSERT INTO orders VALUES (1, 'paid', 9.90)")
    for block in re.findall(r"```sql\n(.*?)```", text, re.DOTALL):
        await connection.execute(block)

    printed = re.search(r"^< (.*)", text, re.MULTILINE)
    assert printed is not None
    assert orjson.loads(printed[1])["data"] == await state_of(connection, "open-orders")
    assert await state_of(connection, "order", "17") == {
        "id": 17,
        "status": "open",
        "total": 9.5,
    }
    assert await state_of(connection, "adw-state", "adw-1") == {
        "adw_id": "adw-1",
        "status": "running",
        "step": "plan",
    }
    described = set(re.findall(r"^\| `([a-z-]+)[/`]", text, re.MULTILINE))
    assert described == set(FEEDS)
