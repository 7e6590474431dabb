"""Feeds that are slow or locked, and others at the same time; the digits of their states."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import suppress

import asyncpg
import orjson
import pytest

from brain.database.budget import FIRST_SECONDS, SLOW_PLACES
from brain.database.connection import opened_pool
from brain.errors import LogUnavailable
from brain.feeds.fanout import FeedSubscriber
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher
from brain.transport.websocket_frames import WEBSOCKET_FRAMING
from tests.database.locks import becomes, locked
from tests.end_to_end.following import define
from tests.proxy import proxy_to

MANY_SECONDS = 100.0
NAP = """
    CREATE OR REPLACE FUNCTION nap() RETURNS jsonb LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep({seconds}); RETURN '1'; END $$
"""
SLEEPING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event = 'PgSleep'
"""


@pytest.fixture
async def pool(database: str) -> AsyncIterator[asyncpg.Pool]:
    async with opened_pool(database) as pool:
        yield pool


async def define_slow(connection: asyncpg.Connection, *names: str) -> None:
    """Define feeds whose query becomes slow after that: it runs when it is defined."""
    await connection.execute(NAP.format(seconds=0))
    for name in names:
        await define(connection, name, "SELECT nap()", "tasks")
    await connection.execute(NAP.format(seconds=90))


async def end_sleeps(connection: asyncpg.Connection, *tasks: asyncio.Task[object]) -> None:
    while not all(task.done() for task in tasks):
        await connection.execute(SLEEPING.replace("count(*)", "pg_cancel_backend(pid)"))
        await asyncio.sleep(0.01)


async def test_slow_feeds_hold_up_their_own_clients_alone(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await define(connection, "quick", "SELECT jsonb '1'", "tasks")
    reader = FeedReader(pool, 1000, MANY_SECONDS)
    await define_slow(connection, *(f"slow-{number}" for number in range(10)))
    slow = [
        asyncio.create_task(reader.shared_state(f"slow-{number}", None)) for number in range(10)
    ]

    assert await reader.shared_state("quick", None) is not None
    assert not any(task.done() for task in slow)

    async def only_the_slow_lane_is_used() -> bool:
        sleeping = await connection.fetchval(SLEEPING)
        return len(reader._lanes._slow_names) == 10 and sleeping == SLOW_PLACES

    await becomes(only_the_slow_lane_is_used)
    for _ in range(10):
        state = await reader.shared_state("quick", None)
        assert state is not None and state.text == "1"
        assert await pool.fetchval("SELECT 1") == 1
    assert await connection.fetchval(SLEEPING) == SLOW_PLACES
    assert not any(task.done() for task in slow)

    await end_sleeps(connection, *slow)
    for number, task in enumerate(slow):
        error = task.exception()
        assert isinstance(error, LogUnavailable)
        assert str(error).startswith(f"the feed slow-{number} cannot be read: ")


async def test_feeds_that_meet_a_lock_hold_up_neither_quick_nor_slow_ones(
    database: str,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.database.budget.LOCK_SECONDS", MANY_SECONDS)
    await connection.execute("CREATE TABLE gate (id int)")
    names = [f"gated-{number}" for number in range(12)]
    for name in names:
        await define(connection, name, "SELECT to_jsonb(count(*)) FROM gate", "tasks")
    await define(connection, "quick", "SELECT jsonb '1'", "tasks")
    await define_slow(connection, "slow")
    await connection.execute(NAP.format(seconds=2 * FIRST_SECONDS))
    reader = FeedReader(pool, 1000, MANY_SECONDS)
    async with locked(database, "gate"), asyncio.timeout(MANY_SECONDS / 2):
        waiting = [asyncio.create_task(reader.shared_state(name, None)) for name in names]
        assert await reader.shared_state("quick", None) is not None
        for _ in range(3):
            assert await reader.shared_state("slow", None) is not None
        assert not any(task.done() for task in waiting)
        assert list(reader._lanes._slow_names) == [("slow", None)]
    for state in await asyncio.gather(*waiting):
        assert state is not None and state.text == "0"


async def test_an_argument_that_is_slow_holds_up_no_other_of_its_feed(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await define(
        connection,
        "one",
        "SELECT to_jsonb($1) FROM pg_sleep(CASE WHEN $1 LIKE 'slow%' THEN 90 ELSE 0 END)",
        "tasks",
        takes_argument=True,
    )
    await define_slow(connection, "slow")
    await connection.execute(NAP.format(seconds=2 * FIRST_SECONDS))
    reader = FeedReader(pool, 1000, MANY_SECONDS)
    async with asyncio.timeout(MANY_SECONDS / 2):
        slow = [asyncio.create_task(reader.shared_state("one", f"slow {n}")) for n in range(3)]
        for number in range(10):
            state = await reader.shared_state("one", str(number))
            assert state is not None and state.text == f'"{number}"'
        assert await reader.shared_state("slow", None) is not None
        assert not any(task.done() for task in slow)
        await end_sleeps(connection, *slow)
    assert all(isinstance(task.exception(), LogUnavailable) for task in slow)


async def test_a_database_that_is_lost_is_not_called_a_slow_feed(database: str) -> None:
    async with proxy_to(database) as (url, proxy), opened_pool(url) as cut_off:
        reader = FeedReader(cut_off, 1000, 0.5)
        proxy.swallow()
        with pytest.raises(LogUnavailable, match=r"^the database cannot be reached"):
            await reader.shared_state("queue", None)
        proxy.restore()
    (problem,) = reader.problems.recent()
    assert (problem.address, problem.count) == ("feed queue", 1)
    assert "slow" not in problem.text


async def test_a_connection_that_is_being_given_up_keeps_no_client_of_a_feed_waiting(
    database: str,
) -> None:
    async with proxy_to(database) as (url, proxy), opened_pool(url) as cut_off:
        refresher = FeedRefresher(FeedReader(cut_off, 1000, 0.5), 1)
        assert await refresher.address("no such feed", None) is None
        proxy.swallow()
        async with asyncio.timeout(6):
            with pytest.raises(TimeoutError):
                await refresher.address("no such feed", None)
        proxy.restore()


async def test_a_feed_has_one_query_at_a_time_whatever_its_argument(
    database: str,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.database.budget.FIRST_SECONDS", MANY_SECONDS)
    monkeypatch.setattr("brain.feeds.reader.TRY_LOCK_SECONDS", MANY_SECONDS)
    await connection.execute("CREATE TABLE gate (id int)")
    await define(
        connection,
        "gated",
        "SELECT to_jsonb(count(*) || $1) FROM gate",
        "tasks",
        takes_argument=True,
    )
    await define(connection, "quick", "SELECT jsonb '1'", "tasks")
    reader = FeedReader(pool, 1000, MANY_SECONDS)
    waiting = """
        SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock'
    """
    async with locked(database, "gate"):
        tasks = [asyncio.create_task(reader.shared_state("gated", str(n))) for n in range(5)]

        async def one_waits() -> bool:
            return bool(await connection.fetchval(waiting))

        await becomes(one_waits)
        assert await connection.fetchval(waiting) == 1
        assert await reader.shared_state("quick", None) is not None
        assert await connection.fetchval(waiting) == 1

    states = await asyncio.gather(*tasks)
    assert [state and state.text for state in states] == [f'"0{n}"' for n in range(5)]


async def test_a_feed_that_takes_too_long_or_waits_for_a_lock_is_named(
    database: str, pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await define_slow(connection, "slow")
    await define(connection, "counted", "SELECT to_jsonb(count(*)) FROM tasks", "tasks")
    reader = FeedReader(pool, 1000, 0.2)
    with pytest.raises(LogUnavailable, match=r"^the feed slow cannot be read: it took longer than"):
        await reader.state("slow", None)
    async with locked(database, "tasks"):
        with pytest.raises(LogUnavailable, match=r"^the feed counted cannot be read: it waited"):
            await reader.state("counted", None)
    assert {problem.address for problem in reader.problems.recent()} == {
        "feed slow",
        "feed counted",
    }


async def test_a_query_that_fails_is_named_without_the_values_of_its_rows(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await connection.execute("CREATE TABLE things (name text); INSERT INTO things VALUES ('x y')")
    await define(
        connection, "broken", "SELECT to_jsonb(max(nullif(name, 'x y')::int)) FROM things", "t"
    )
    await connection.execute("INSERT INTO things VALUES ('password')")
    reader = FeedReader(pool, 1000, 4)
    with pytest.raises(LogUnavailable, match=r"^the feed broken cannot be read: the query fails$"):
        await reader.state("broken", None)
    await connection.execute("DROP TABLE things")
    with pytest.raises(
        LogUnavailable, match=r'^the feed broken .*: relation "public.things" does not'
    ):
        await reader.state("broken", None)


async def test_subscribers_of_a_slow_feed_are_closed_and_those_of_another_served(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await define_slow(connection, "slow")
    await define(connection, "quick", "SELECT jsonb '1.10'", "tasks")
    refresher = FeedRefresher(FeedReader(pool, 1000, 0.2), interval_seconds=0.01)
    running = asyncio.create_task(refresher.run())
    assert await refresher.address("slow", None) and await refresher.address("quick", None)

    class Client:
        def __init__(self, name: str) -> None:
            self.received: asyncio.Queue[object] = asyncio.Queue()
            subscriber = FeedSubscriber(self, WEBSOCKET_FRAMING, self.received.put_nowait)
            refresher.subscribe(name, None, subscriber)

        def send_now(self, frames: bytes) -> int:
            self.received.put_nowait(frames)
            return len(frames)

        write = send_now

    slow, quick = Client("slow"), Client("quick")
    async with asyncio.timeout(20):
        frame = await quick.received.get()
        assert b'"data":1.10' in (frame if isinstance(frame, bytes) else b"")
        reason = await slow.received.get()
    assert isinstance(reason, LogUnavailable)
    assert str(reason).startswith("the feed slow cannot be read: it took longer than")
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running


@pytest.mark.parametrize("ignored", ["'{}'", "'{at}'"])
@pytest.mark.parametrize(
    "value",
    [
        "1.10",
        "12345678901234567890.12",
        "9007199254740993",
        "1" + "0" * 400,
        "[" * 1100 + "]" * 1100,
        '"\\ud83d\\ude00 \\n \\\\"',
    ],
)
async def test_a_state_has_every_digit_and_any_depth(
    pool: asyncpg.Pool, connection: asyncpg.Connection, value: str, ignored: str
) -> None:
    await connection.execute("CREATE TABLE kept (value jsonb)")
    await connection.execute("INSERT INTO kept VALUES ($1::text::jsonb)", value)
    query = "SELECT jsonb_build_object('value', value, 'at', random()) FROM kept"
    await connection.execute(
        f"SELECT brain.define_feed('kept', $1, '{{a}}', ignored_keys => {ignored})", query
    )
    reader = FeedReader(pool, 100_000, 4)

    one, other = await reader.state("kept", None), await reader.state("kept", None)

    written = await connection.fetchval("SELECT value::text FROM kept")
    assert one is not None and other is not None
    assert f'"value": {written}' in one.text
    assert (one.etag == other.etag) == (ignored != "'{}'")


async def test_a_state_has_one_text_per_value_whatever_the_settings(
    database: str, connection: asyncpg.Connection
) -> None:
    await define(
        connection,
        "values",
        """
        SELECT jsonb_build_object('float', 0.1::float4::float8, 'bytes', '\\x00ff'::bytea,
            'at', timestamptz '2026-02-06 01:30Z', 'day', date '2026-02-06', 'money', 1.5::money,
            'interval', interval '1 day 2 hours', 'table', 'tasks'::regclass, 'range',
            tstzrange('2026-02-06 01:30Z', NULL))
        """,
        "tasks",
    )
    name = await connection.fetchval("SELECT current_database()")
    states = []
    for settings in (
        {},
        {
            "extra_float_digits": "-5",
            "bytea_output": "escape",
            "timezone": "Asia/Tokyo",
            "datestyle": "German",
            "intervalstyle": "iso_8601",
            "search_path": "pg_catalog",
            "quote_all_identifiers": "on",
        },
    ):
        for key, setting in settings.items():
            await connection.execute(f"ALTER DATABASE {name} SET {key} = '{setting}'")
        session = await asyncpg.connect(database)
        states.append(await session.fetchval("SELECT brain.feed('values')::text"))
        await session.close()

    assert states[0] == states[1]
    assert orjson.loads(states[0])["at"] == "2026-02-06T01:30:00+00:00"
