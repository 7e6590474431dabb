"""Snapshots of tables that are slow, locked or forbidden, and of others at the same time."""

from __future__ import annotations

import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import pytest

from brain.database.budget import FAST_PLACES, FIRST_SECONDS
from brain.database.connection import opened_pool
from brain.database.memory import Memory, Reservation
from brain.database.reader_session import ReaderSession
from brain.database.snapshot import SnapshotReader
from brain.database.table import PAGE_BYTES, PAGE_ROWS, pages, read_rows
from brain.database.table_access import TableAccess
from brain.errors import LogUnavailable, SnapshotTooLarge
from brain.problems import Problems
from tests.database.locks import becomes, locked
from tests.database.test_encodings import database_in

MEMORY = 1_000_000
LONG_SECONDS = 100.0

# Reading the row of the slow one takes a minute and a half.
TABLES = """
    CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS
        $$ BEGIN PERFORM pg_sleep(90); RETURN true; END $$;
    CREATE TABLE slow_one (id int PRIMARY KEY);
    INSERT INTO slow_one VALUES (1);
    ALTER TABLE slow_one ENABLE ROW LEVEL SECURITY;
    CREATE POLICY slowly ON slow_one AS RESTRICTIVE USING (slowly());
    CREATE TABLE orders (id int PRIMARY KEY, amount numeric);
    INSERT INTO orders VALUES (1, 1.10);
    CREATE TABLE news (id int PRIMARY KEY);
    INSERT INTO news VALUES (1);
    SELECT brain.watch('slow_one', 'slow', '{id}', row_security => 'ignored');
    SELECT brain.watch('orders', 'orders', '{id,amount}');
    SELECT brain.watch('news', 'news', '{id}');
"""
SLEEPING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event = 'PgSleep'
"""
WAITING = """
    SELECT count(*) FROM pg_stat_activity
     WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


@pytest.fixture
async def pool(database: str, connection: asyncpg.Connection) -> AsyncIterator[asyncpg.Pool]:
    await connection.execute(TABLES)
    async with opened_pool(database) as pool:
        yield pool


async def watch_nap(connection: asyncpg.Connection, name: str, seconds: float) -> None:
    """Create and watch a table with a row that takes so long to be read: by its policy."""
    await connection.execute(
        f"""
        CREATE FUNCTION nap_{name}() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({seconds}); RETURN true; END $$;
        CREATE TABLE {name} (id int PRIMARY KEY);
        INSERT INTO {name} VALUES (1);
        ALTER TABLE {name} ENABLE ROW LEVEL SECURITY;
        CREATE POLICY nap ON {name} AS RESTRICTIVE USING (nap_{name}());
        SELECT brain.watch('{name}', '{name}', '{{id}}', row_security => 'ignored');
        """
    )


def counted_reads(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Return how often each channel's table is read from now on."""
    reads = Counter[str]()

    async def counted(session: ReaderSession, channel: str, *more: Any) -> list[str]:
        reads[channel] += 1
        return await read_rows(session, channel, *more)

    monkeypatch.setattr("brain.database.snapshot.read_rows", counted)
    return reads


def reading(
    reader: SnapshotReader, pool: asyncpg.Pool, *channels: str
) -> asyncio.Task[dict[str, list[str]]]:
    async def read() -> dict[str, list[str]]:
        return (await reader.read(pool, frozenset(channels))).tables

    return asyncio.create_task(read())


async def test_a_locked_table_holds_up_those_who_ask_for_it_alone(
    database: str,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.database.budget.LOCK_SECONDS", LONG_SECONDS)
    attempts = []

    class Counted(Reservation):
        def __init__(self, memory: Memory) -> None:
            super().__init__(memory)
            attempts.append(1)

    monkeypatch.setattr("brain.database.snapshot.Reservation", Counted)
    names = [f"small_{number}" for number in range(20)]
    for name in names:
        await watch_nap(connection, name, 0)
    reader = SnapshotReader(TableAccess(MEMORY, LONG_SECONDS))
    async with locked(database, "orders"):
        waiting = [
            reading(reader, pool, "orders", name, *more)
            for name in names
            for more in ((), ("news",))
        ]
        for _ in range(10):
            assert (await reading(reader, pool, "news"))["news"] == ['{"id" : 1}']
            await connection.fetchval("SELECT id FROM brain.tick()")
        assert not any(task.done() for task in waiting)
        assert len(attempts) <= 10 + FAST_PLACES

    for tables in await asyncio.gather(*waiting):
        assert tables["orders"] == ['{"id" : 1, "amount" : 1.10}']


async def test_a_table_that_stays_locked_is_named_to_those_who_ask_for_it(
    database: str, pool: asyncpg.Pool
) -> None:
    problems = Problems()
    reader = SnapshotReader(TableAccess(MEMORY, 0.2, problems))
    async with locked(database, "orders"):
        for channels in (["orders"], ["news", "orders"]):
            with pytest.raises(LogUnavailable, match=r"^orders cannot be read: it is locked$"):
                await reading(reader, pool, *channels)
    assert (await reading(reader, pool, "orders"))["orders"]

    (problem,) = problems.recent()
    assert (problem.address, problem.count) == ("snapshot orders", 2)
    assert problem.text == "orders cannot be read: it is locked"


async def test_every_table_but_one_may_be_locked(
    database: str,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.database.budget.LOCK_SECONDS", LONG_SECONDS)
    names = [f"locked_{number}" for number in range(15)]
    for name in names:
        await connection.execute(
            f"CREATE TABLE {name} (id int PRIMARY KEY);"
            f"SELECT brain.watch('{name}', '{name}', '{{id}}')"
        )
    reader = SnapshotReader(TableAccess(MEMORY, LONG_SECONDS))
    async with locked(database, *names):
        waiting = [reading(reader, pool, name) for name in names]
        for _ in range(10):
            assert (await reading(reader, pool, "news"))["news"]
            assert await pool.fetchval("SELECT 1") == 1
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)


async def test_a_slow_table_holds_up_those_who_ask_for_it_alone(
    pool: asyncpg.Pool, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many ask at once, with other tables: it is tried twice until it is known."""
    reads = counted_reads(monkeypatch)
    names = [f"small_{number}" for number in range(12)]
    for name in names:
        await watch_nap(connection, name, 0)
    reader = SnapshotReader(TableAccess(MEMORY, LONG_SECONDS))
    waiting = [reading(reader, pool, "slow", name) for name in names]
    for channels in (["news"], ["news", "orders"], *([name] for name in names)):
        assert (await reading(reader, pool, *channels)).keys() == set(channels)
        await connection.fetchval("SELECT id FROM brain.tick()")
    assert reads["slow"] <= FAST_PLACES + 1
    assert await connection.fetchval(SLEEPING) == 1
    assert not any(task.done() for task in waiting)

    while not all(task.done() for task in waiting):
        await connection.execute(SLEEPING.replace("count(*)", "pg_cancel_backend(pid)"))
        await asyncio.sleep(0.01)
    for task in waiting:
        assert str(task.exception()).startswith("slow cannot be read: ")


async def test_a_slow_table_does_not_hold_up_another_slow_one(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await watch_nap(connection, "slower", 2 * FIRST_SECONDS)
    reader = SnapshotReader(TableAccess(MEMORY, LONG_SECONDS))
    waiting = [reading(reader, pool, "slow", *more) for more in ([], ["news"], ["orders"])]
    async with asyncio.timeout(LONG_SECONDS / 2):
        for more in ([], ["news"], ["orders"]):
            assert (await reading(reader, pool, "slower", *more))["slower"]
    assert not any(task.done() for task in waiting)
    while not all(task.done() for task in waiting):
        await connection.execute(SLEEPING.replace("count(*)", "pg_cancel_backend(pid)"))
        await asyncio.sleep(0.01)
    assert all(task.exception() for task in waiting)


async def test_a_slow_table_is_read_for_all_who_wait_for_it(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await watch_nap(connection, "slower", 0.5)
    names = [f"small_{number}" for number in range(6)]
    for name in names:
        await watch_nap(connection, name, 0)
    reader = SnapshotReader(TableAccess(MEMORY, table_seconds=1))
    for tables in await asyncio.gather(*(reading(reader, pool, "slower", name) for name in names)):
        assert tables["slower"]


async def test_all_tables_of_a_snapshot_have_three_times_as_long_as_one(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    names = [f"slow_{number:02}" for number in range(12)]
    for name in names:
        await watch_nap(connection, name, 0.2)
    reader = SnapshotReader(TableAccess(MEMORY, table_seconds=0.5))
    for name in names[:2]:
        assert await reading(reader, pool, name)
    with pytest.raises(
        LogUnavailable, match=r"^slow_\d\d cannot be read: it took longer than 1.5 s"
    ):
        await reading(reader, pool, *names)


async def test_all_ways_of_reading_a_table_have_its_seconds_together(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    """Reading the row fails after 0.4 s, in each of the three ways."""
    await watch_nap(connection, "failing", 0.4)
    await connection.execute(
        """
        CREATE OR REPLACE FUNCTION nap_failing() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(0.4); RAISE 'cannot be read'; END $$
        """
    )
    reader = SnapshotReader(TableAccess(MEMORY, table_seconds=1))
    with pytest.raises(LogUnavailable, match=r"^failing cannot be read: it took longer than 1 s$"):
        await reading(reader, pool, "failing")
    assert list(reader._access.lanes._slow_names) == ["failing"]
    with pytest.raises(LogUnavailable, match=r"^failing cannot be read: the query fails$"):
        await reading(SnapshotReader(TableAccess(MEMORY, table_seconds=9)), pool, "failing")


async def test_the_table_that_takes_longest_is_the_slow_one(
    pool: asyncpg.Pool, connection: asyncpg.Connection
) -> None:
    await watch_nap(connection, "a_slow", 0.8 * FIRST_SECONDS)
    await watch_nap(connection, "b_less", 0.4 * FIRST_SECONDS)
    reader = SnapshotReader(TableAccess(MEMORY, LONG_SECONDS))
    assert (await reading(reader, pool, "a_slow", "b_less")).keys() == {"a_slow", "b_less"}
    assert list(reader._access.lanes._slow_names) == ["a_slow"]


async def test_snapshots_never_wait_for_connections_that_they_hold_themselves(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.connection.POOL_CONNECTIONS", 2)
    names = [f"small_{number}" for number in range(12)]
    for name in names:
        await watch_nap(connection, name, 0)
    async with opened_pool(database) as own:
        reader = SnapshotReader(TableAccess(MEMORY))
        assert await asyncio.gather(*(reading(reader, own, name) for name in names))


async def test_a_slow_table_fails_after_its_budget(pool: asyncpg.Pool) -> None:
    problems = Problems()
    reader = SnapshotReader(TableAccess(MEMORY, 0.3, problems))
    tasks = [reading(reader, pool, "slow", *more) for more in ([], ["news"], ["orders"])]
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        assert isinstance(outcome, LogUnavailable)
        assert outcome.http_status == 503
    assert "slow cannot be read: it took longer than 0.3 s" in {
        problem.text for problem in problems.recent()
    }
    assert (await reading(reader, pool, "news"))["news"]


async def test_rows_of_a_table_that_is_rewritten_meanwhile_are_there(
    database: str,
    pool: asyncpg.Pool,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To a snapshot that was taken before the end of the ALTER TABLE, the table would be empty."""
    monkeypatch.setattr("brain.database.table.TRY_LOCK_SECONDS", LONG_SECONDS)
    reader = SnapshotReader(TableAccess(MEMORY))
    altering = await asyncpg.connect(database)
    async with altering.transaction():
        await altering.execute("ALTER TABLE orders ALTER COLUMN id TYPE bigint")
        task = reading(reader, pool, "orders")

        async def it_waits() -> bool:
            return bool(await connection.fetchval(WAITING))

        await becomes(it_waits)
    await altering.close()

    assert (await task)["orders"] == ['{"id" : 1, "amount" : 1.10}']


async def test_missing_rights_and_row_security_concern_their_table_alone(
    database: str, connection: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await connection.execute(
        """
        CREATE ROLE snapshot_reader LOGIN IN ROLE brain_owner;
        CREATE TABLE secret (id int PRIMARY KEY, shown text, hidden text);
        CREATE TABLE of_tenants (id int PRIMARY KEY);
        SELECT brain.watch('secret', 'secret', '{id,shown}');
        SELECT brain.watch('of_tenants', 'of_tenants', '{id}');
        INSERT INTO secret VALUES (1, 'a', 'b');
        INSERT INTO of_tenants VALUES (1);
        ALTER TABLE of_tenants ENABLE ROW LEVEL SECURITY;
        CREATE POLICY one ON of_tenants USING (id = current_setting('app.tenant')::int);
        REVOKE SELECT ON secret FROM brain_reader;
        GRANT brain_reader TO snapshot_reader;
        """
    )
    parts = urlsplit(database)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"snapshot_reader@{host}"))
    try:
        async with opened_pool(url) as own:
            reader = SnapshotReader(TableAccess(MEMORY))
            for channel, reason in (
                ("secret", "brain_reader may not read public.secret, .*"),
                ("of_tenants", "row-level security of public.of_tenants hides rows from .*"),
            ):
                with pytest.raises(LogUnavailable, match=rf"^{channel} cannot be read: {reason}$"):
                    await reading(reader, own, "news", channel)
            assert (await reading(reader, own, "news"))["news"]

            await connection.execute("GRANT SELECT (id, shown) ON secret TO brain_reader")
            rows = (await reading(reader, own, "secret"))["secret"]
            assert rows == ['{"id" : 1, "shown" : "a"}']
    finally:
        await connection.execute("DROP OWNED BY snapshot_reader; DROP ROLE snapshot_reader")


async def test_an_error_may_not_show_clients_a_value(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE ROLE policy_reader LOGIN IN ROLE brain_owner;
        CREATE TABLE bad_one (id int PRIMARY KEY, value text);
        INSERT INTO bad_one VALUES (1, 'password');
        SELECT brain.watch('bad_one', 'bad', '{id}');
        ALTER TABLE bad_one ENABLE ROW LEVEL SECURITY;
        CREATE POLICY one ON bad_one AS RESTRICTIVE USING (value::int > 0);
        CREATE POLICY all_rows ON bad_one FOR SELECT TO brain_reader USING (true);
        GRANT brain_reader TO policy_reader;
        """
    )
    parts = urlsplit(database)
    host = parts.netloc.rpartition("@")[2]
    url = urlunsplit(parts._replace(netloc=f"policy_reader@{host}"))
    problems = Problems()
    try:
        async with opened_pool(url) as own:
            with pytest.raises(LogUnavailable, match=r"^bad cannot be read: the query fails$"):
                await reading(SnapshotReader(TableAccess(MEMORY, problems=problems)), own, "bad")
        assert "password" in problems.recent()[0].text
    finally:
        await connection.execute("DROP OWNED BY policy_reader; DROP ROLE policy_reader")


async def test_a_table_that_was_dropped_is_named(
    connection: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await connection.execute("DROP TABLE orders")
    reader = SnapshotReader(TableAccess(MEMORY))
    with pytest.raises(LogUnavailable, match=r"^orders cannot be read: the table was dropped$"):
        await reading(reader, pool, "orders", "news")
    assert (await reading(reader, pool, "news"))["news"]


async def test_all_snapshots_together_take_so_much_memory(
    connection: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await connection.execute("INSERT INTO news SELECT generate_series(2, 1000)")
    reader = SnapshotReader(TableAccess(100_000, LONG_SECONDS))
    first = await reader.read(pool, frozenset({"news"}))
    second = reading(reader, pool, "news", "orders")
    assert (await reading(reader, pool, "orders"))["orders"]
    assert not second.done()

    assert len(first.tables["news"]) == 1000
    del first
    assert len((await second)["news"]) == 1000

    await connection.execute("INSERT INTO news SELECT generate_series(1001, 2000)")
    with pytest.raises(SnapshotTooLarge, match=r"100000 bytes, .* BRAIN_SNAPSHOT_BYTES"):
        await reading(reader, pool, "news")
    assert (await reading(reader, pool, "orders"))["orders"]


async def test_without_memory_a_client_is_told_to_come_back(
    connection: asyncpg.Connection, pool: asyncpg.Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    reads = counted_reads(monkeypatch)
    await connection.execute("INSERT INTO news SELECT generate_series(2, 1000)")
    reader = SnapshotReader(TableAccess(100_000, 0.5))
    first = await reader.read(pool, frozenset({"news"}))
    with pytest.raises(LogUnavailable, match=r"other snapshots take the memory"):
        await reading(reader, pool, "news", "orders")
    assert reads["news"] == 2  # once each: nothing was given back meanwhile
    assert first.tables["news"]


async def test_a_row_that_takes_all_of_the_memory_is_too_large(
    connection: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await connection.execute(
        """
        CREATE TABLE large (id int PRIMARY KEY, value text);
        INSERT INTO large VALUES (1, 'small'), (2, repeat('x', 200000));
        SELECT brain.watch('large', 'large', '{id,value}');
        """
    )
    reader = SnapshotReader(TableAccess(100_000))
    with pytest.raises(SnapshotTooLarge, match=r"100000 bytes, .* BRAIN_SNAPSHOT_BYTES"):
        await reading(reader, pool, "large")
    assert reader._access.memory.free == 100_000


async def test_rows_that_are_read_again_in_another_way_count_once(
    connection: asyncpg.Connection, pool: asyncpg.Pool
) -> None:
    await connection.execute(
        """
        CREATE TYPE odd AS ENUM ('good', 'bad');
        CREATE TABLE parts (id int PRIMARY KEY, value odd, text text);
        INSERT INTO parts SELECT n, 'good', repeat('x', 100) FROM generate_series(1, 699) n;
        INSERT INTO parts VALUES (700, 'bad', 'x');
        SELECT brain.watch('parts', 'parts', '{id,value,text}');
        DELETE FROM pg_enum WHERE enumtypid = 'odd'::regtype AND enumlabel = 'bad';
        """
    )
    reader = SnapshotReader(TableAccess(200_000))
    snapshot = await reader.read(pool, frozenset({"parts"}))
    rows = snapshot.tables["parts"]
    assert len(rows) == 700 and '"value"' in rows[0] and '"value"' not in rows[-1]
    taken = 200_000 - reader._access.memory.free
    assert taken == sum(sys.getsizeof(row) + 8 for row in rows)


async def test_a_page_of_large_rows_has_few_of_them(connection: asyncpg.Connection) -> None:
    query = """
        SELECT repeat('x', CASE WHEN n <= 100 THEN 100000 ELSE 10 END) AS data
          FROM generate_series(1, 3000) n
    """
    sizes, numbers = [], []
    async with connection.transaction():
        async for page in pages(connection, time.monotonic() + LONG_SECONDS, query):
            numbers.append(len(page))
            sizes.append(sum(len(record["data"]) for record in page))
    assert sum(numbers) == 3000
    assert max(sizes) <= PAGE_BYTES and max(numbers) == PAGE_ROWS


async def test_texts_and_names_without_equivalent_in_utf8_hide_nothing_else(postgres: str) -> None:
    strange = "convert_from('\\xf4a9', 'EUC_JP')"
    async with database_in(postgres, "EUC_JP") as url, opened_pool(url) as pool:
        await pool.execute(
            f"""
            CREATE TABLE public.texts (id int PRIMARY KEY, value text);
            INSERT INTO public.texts VALUES (1, 'a' || {strange}), (2, 'b');
            CREATE TABLE public.other (id int PRIMARY KEY);
            SELECT brain.watch('public.texts', 'texts', '{{id,value}}');
            SELECT brain.watch('public.other', {strange}, '{{id}}');
            """
        )
        rows = (await SnapshotReader(TableAccess(MEMORY)).read(pool, frozenset({"texts"}))).tables[
            "texts"
        ]
    assert rows[0].startswith('{"id" : 1, "value" : "') and "?" in rows[0]
    assert rows[1] == '{"id" : 2, "value" : "b"}'
