"""Pages of tables: in the order of the keys, at ticks, shared, and each in its time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest

from brain.database.connection import opened_pool
from brain.database.page_statement import PageStatements
from brain.database.pages import PageReader
from brain.database.row_conditions import bind_condition
from brain.database.table_access import TableAccess
from brain.errors import CursorLost, LogUnavailable, SnapshotTooLarge
from brain.message.condition import Condition
from brain.message.condition_parsing import parse_condition
from brain.message.page import Page, PageRequest
from tests.database.locks import locked
from tests.database.log_reading import parsed

pytestmark = pytest.mark.postgres_versions

MEMORY = 2**24


@pytest.fixture
async def pool(core_database: str) -> AsyncIterator[asyncpg.Pool]:
    async with opened_pool(core_database) as pool:
        yield pool


@pytest.fixture
async def writer(core_database: str) -> AsyncIterator[asyncpg.Connection]:
    writer = await asyncpg.connect(core_database)
    yield writer
    await writer.close()


async def watch(writer: asyncpg.Connection, columns: str, key: str, *, watched: str = "") -> None:
    names = watched or ",".join(one.split()[0] for one in columns.split(", "))
    await writer.execute(f"CREATE TABLE things ({columns}, PRIMARY KEY ({key}))")
    await writer.execute("SELECT brain.watch('things', 'things', $1)", names.split(","))


async def condition(pool: asyncpg.Pool, where: object) -> Condition:
    return await bind_condition(pool, "things", parse_condition(where))


async def walk(reader: PageReader, pool: asyncpg.Pool, request: PageRequest) -> list[Page]:
    pages = [await reader.read(pool, request)]
    while (end := pages[-1].end) is not None:
        pages.append(await reader.read(pool, replace(request, after=end)))
    return pages


def keys(pages: list[Page]) -> list[str]:
    return [key for page in pages for key, _ in page.rows]


# Values that are written in the order of their type.
KEYS = {
    "bigint": ["-9223372036854775808", "-1", "0", "2", "10", "9007199254740993"],
    "numeric": ["-Infinity", "-1.50", "0", "2", "10", "Infinity", "NaN"],
    "double precision": ["-Infinity", "-1.5", "-0", "1e-300", "10", "Infinity", "NaN"],
    "text": ["", " ", "'", "A", "\\", "a", "a ", "ä", "\U0001f600"],
    "varchar(3)": ["", "A", "B", "a"],
    'text COLLATE "C"': ["", "A", "B", "a", "b", "ä"],
    "char(3)": ["a", "b", "c d"],
    "uuid": ["00000000-0000-0000-0000-000000000001", "f0000000-0000-0000-0000-000000000000"],
    "timestamptz": [
        "-infinity",
        "2026-01-01 00:00:00+00",
        "2026-01-01 00:00:00.000001+00",
        "infinity",
    ],
    "date": ["0044-03-15 BC", "2026-01-01", "infinity"],
    "interval": ["-1 days", "1 mon", "1 mon 00:00:00.000001", "40 days"],
    "boolean": ["false", "true"],
    "bytea": ["\\x", "\\x00", "\\xff"],
    "bit(3)": ["000", "011", "110"],
    '"char"': ["A", "a"],
    "inet": ["10.0.0.0/8", "10.0.0.1", "::1"],
    "mood": ["sad", "ok", "happy"],
    "positive": ["1", "2", "10"],
    "int[]": ["{}", "{1}", "{1,2}", "{2}"],
    "int4range": ["empty", "[1,2)", "[1,3)", "[2,3)"],
}


async def test_pages_follow_the_order_of_any_type_of_key(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await writer.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
    await writer.execute("CREATE DOMAIN positive AS int CHECK (value > 0)")
    for type, values in KEYS.items():
        await watch(writer, f"id {type}, n int", "id")
        for number, value in enumerate(values):
            await writer.execute(f"INSERT INTO things VALUES ($1::text::{type}, $2)", value, number)

        order = [n for (n,) in await writer.fetch("SELECT n FROM things ORDER BY id")]
        for limit in (1, 2, 500):
            reader = PageReader(TableAccess(MEMORY))
            pages = await walk(reader, pool, PageRequest("things", limit=limit))
            assert [parsed(row)["n"] for page in pages for _, row in page.rows] == order, type
            assert max(len(page.rows) for page in pages) <= limit
        await writer.execute("SELECT brain.unwatch('things'); DROP TABLE things")


@pytest.mark.parametrize(
    "columns", ["a int, b text", "a text, b int, c uuid", "a positive, b varchar(9), c date"]
)
async def test_pages_follow_the_order_of_keys_with_several_columns(
    pool: asyncpg.Pool, writer: asyncpg.Connection, columns: str
) -> None:
    await writer.execute("CREATE DOMAIN positive AS int CHECK (value > 0)")
    values = {
        "int": "n % 3",
        "positive": "1 + n % 3",
        "text": "'x' || n % 5",
        "varchar(9)": "'x' || n % 5",
        "uuid": "md5(n::text)::uuid",
        "date": "'2026-01-01'::date + n",
    }
    parts = [one.split() for one in columns.split(", ")]
    await watch(writer, columns, ", ".join(name for name, _ in parts))
    shown = ", ".join(values[type] for _, type in parts)
    await writer.execute(
        f"INSERT INTO things SELECT {shown} FROM generate_series(1, 60) n ON CONFLICT DO NOTHING"
    )

    pages = await walk(PageReader(TableAccess(MEMORY)), pool, PageRequest("things", limit=4))

    names = ", ".join(name for name, _ in parts)
    order = await writer.fetch(
        f"SELECT json_build_array({names})::text FROM things ORDER BY {names}"
    )
    assert keys(pages) == [key for (key,) in order]


async def test_a_key_of_columns_with_operators_of_different_schemas_is_ordered(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
) -> None:
    """As ROW(…) > ROW(…) cannot say it."""
    if not await writer.fetchval("SELECT 1 FROM pg_available_extensions WHERE name = 'citext'"):
        pytest.skip("this PostgreSQL has no citext")
    await writer.execute("CREATE SCHEMA own; CREATE EXTENSION citext SCHEMA own")
    await watch(writer, "a own.citext, b int", "a, b")
    await writer.execute(
        "INSERT INTO things SELECT chr(65 + n % 7 + 32 * (n % 2)), n FROM generate_series(1, 40) n"
    )

    request = PageRequest("things", limit=3)
    with pytest.raises(LogUnavailable, match="GRANT USAGE ON SCHEMA own TO brain_reader"):
        await PageReader(TableAccess(MEMORY)).read(pool, request)
    await writer.execute("GRANT USAGE ON SCHEMA own TO brain_reader")

    pages = await walk(PageReader(TableAccess(MEMORY)), pool, request)

    order = await writer.fetch("SELECT b FROM things ORDER BY a, b")
    assert [parsed(row)["b"] for page in pages for _, row in page.rows] == [b for (b,) in order]


async def test_the_next_page_begins_in_the_index(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "room text, number int, load text", "room, number")
    await writer.execute(
        "INSERT INTO things SELECT 'r' || n % 5, n, 'x' FROM generate_series(1, 5000) n"
    )
    await writer.execute("ANALYZE things")
    first = await PageReader(TableAccess(MEMORY)).read(pool, PageRequest("things", limit=7))
    async with pool.acquire() as connection:
        statements = PageStatements()
        table = await statements.table(connection, "things")
        assert table is not None
        statement, _ = await statements.statement(
            connection,
            table,
            PageRequest("things", after=first.end, limit=7),
            "data",
            careful=False,
        )
        plan = "\n".join(line for (line,) in await connection.fetch(f"EXPLAIN {statement}"))

    assert "Index Scan using things_pkey" in plan
    assert "Index Cond: (ROW(room, number) > ROW(" in plan
    assert "Sort" not in plan


async def test_a_page_has_the_rows_of_its_filter_its_rules_and_its_key(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int, owner int, status text", "id")
    await writer.execute(
        "INSERT INTO things SELECT n, n % 2, CASE WHEN n > 4 THEN 'new' END"
        " FROM generate_series(1, 8) n"
    )
    reader = PageReader(TableAccess(MEMORY))
    request = PageRequest("things", condition=await condition(pool, {"status": "new"}), limit=2)
    assert keys(await walk(reader, pool, request)) == ["[5]", "[6]", "[7]", "[8]"]
    assert keys(await walk(reader, pool, replace(request, key="6"))) == ["[6]"]
    assert keys(await walk(reader, pool, replace(request, key="2"))) == []
    assert keys(await walk(reader, pool, replace(request, key="no number"))) == []

    await writer.execute("SELECT brain.restrict('things', '{\"owner\": \"sub\"}')")
    assert keys(await walk(reader, pool, request)) == []
    number = await writer.fetchval("SELECT rule_number FROM brain.watched")
    allowed = f'{{"": [{number}], "owner": [1]}}'
    assert keys(await walk(reader, pool, replace(request, allowed=allowed))) == ["[5]", "[7]"]


async def test_the_queries_of_many_filters_are_kept_within_a_limit_of_memory(
    pool: asyncpg.Pool, writer: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("brain.database.page_statement.MOST_CHARACTERS", 30_000)
    await watch(writer, "id int, status text", "id")
    await writer.execute("INSERT INTO things SELECT n, 's' || n FROM generate_series(1, 9) n")
    reader = PageReader(TableAccess(MEMORY))
    for number in (*range(1, 10), *range(1, 10)):
        where = {"status": {"in": [f"s{number}", *("x" * 90 + str(n) for n in range(99))]}}
        request = PageRequest("things", condition=await condition(pool, where), limit=2)
        assert keys(await walk(reader, pool, request)) == [f"[{number}]"]
        assert 0 < reader.statements.held_characters <= 30_000
    reader.statements.forget("things")
    assert reader.statements.held_characters == 0


async def test_a_row_is_found_by_the_name_that_a_subscription_has_for_it(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
) -> None:
    await watch(writer, "a text, b boolean, c numeric", "a, b, c")
    await writer.execute("INSERT INTO things VALUES ('x:%3A', true, 1.50), ('x', false, 1.5)")
    reader = PageReader(TableAccess(MEMORY))
    found = await reader.read(pool, PageRequest("things", key="x%3A%253A:true:1.50"))
    assert keys([found]) == ['["x:%3A", true, 1.50]']
    # The number is equal, and the key of no row.
    assert keys([await reader.read(pool, PageRequest("things", key="x:false:1.50"))]) == []


async def test_what_cannot_be_shown_is_left_out_and_what_cannot_be_sent_is_repaired(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
) -> None:
    await watch(writer, "id int, at timestamptz, note text", "id")
    await writer.execute(
        "INSERT INTO things SELECT n, now(), repeat('x', CASE n WHEN 5 THEN 300000 ELSE 1 END)"
        " FROM generate_series(1, 9) n"
    )
    pages = await walk(PageReader(TableAccess(MEMORY)), pool, PageRequest("things", limit=2))
    rows = [parsed(row) for page in pages for _, row in page.rows]
    assert [row["id"] for row in rows] == list(range(1, 10))
    assert [row["id"] for row in rows if "note" not in row] == [5]


async def test_a_page_ends_after_so_many_bytes(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int, note text", "id")
    await writer.execute(
        "INSERT INTO things SELECT n, repeat('x', 30000) FROM generate_series(1, 9) n"
    )
    pages = await walk(PageReader(TableAccess(MEMORY)), pool, PageRequest("things"))
    assert len(pages) > 2
    assert keys(pages) == [f"[{number}]" for number in range(1, 10)]


async def test_pages_asked_for_together_have_one_tick_and_equal_ones_are_one(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
) -> None:
    await watch(writer, "id int, owner int", "id")
    await writer.execute("INSERT INTO things SELECT n, n % 5 FROM generate_series(1, 50) n")
    reader = PageReader(TableAccess(MEMORY))
    requests = [
        PageRequest("things", condition=await condition(pool, {"owner": number % 5}))
        for number in range(100)
    ]

    pages = await asyncio.gather(*(reader.read(pool, request) for request in requests))

    assert len({id(page) for page in pages}) == reader.pages == 5
    assert len({page.cursor for page in pages}) == reader.ticks
    assert reader.ticks <= 3  # more only where the machine is slow
    for number, page in enumerate(pages):
        assert {parsed(row)["owner"] for _, row in page.rows} == {number % 5}
        assert len(page.rows) == 10


async def test_a_page_is_at_a_tick_that_was_cut_after_it_was_asked_for(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int", "id")
    reader = PageReader(TableAccess(MEMORY))
    first = asyncio.create_task(reader.read(pool, PageRequest("things")))
    for number in range(20):
        await writer.execute("INSERT INTO things VALUES ($1)", number)
        page = await reader.read(pool, PageRequest("things"))
        assert len(page.rows) == number + 1
    await first


async def test_one_page_holds_all_rows_as_far_as_memory_allows(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int", "id")
    await writer.execute("INSERT INTO things SELECT generate_series(1, 2000)")
    whole = PageRequest("things", limit=None)
    page = await PageReader(TableAccess(MEMORY)).read(pool, whole)
    assert len(page.rows) == 2000
    assert page.end is None
    with pytest.raises(SnapshotTooLarge):
        await PageReader(TableAccess(10_000)).read(pool, whole)


async def test_memory_is_given_back_and_waited_for(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int, note text", "id")
    await writer.execute(
        "INSERT INTO things SELECT n, repeat('x', 20000) FROM generate_series(1, 9) n"
    )
    access = TableAccess(100_000, table_seconds=2.0)
    reader = PageReader(access)
    held = [await reader.read(pool, PageRequest("things", key=str(n))) for n in range(1, 5)]
    waiting = asyncio.create_task(reader.read(pool, PageRequest("things", key="9")))
    with pytest.raises(LogUnavailable, match="BRAIN_SNAPSHOT_BYTES"):
        await waiting
    waiting = asyncio.create_task(reader.read(pool, PageRequest("things", key="9")))
    await asyncio.sleep(0.1)
    held.clear()
    assert keys([await waiting]) == ["[9]"]
    del waiting
    async with asyncio.timeout(20):
        while access.memory.free < 100_000:
            await asyncio.sleep(0.01)


async def test_a_table_whose_key_is_not_all_watched_has_no_pages(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await watch(writer, "id int, part int, note text", "id, part", watched="id,note")
    with pytest.raises(LogUnavailable, match="not all columns of its primary key are watched"):
        await PageReader(TableAccess(MEMORY)).read(pool, PageRequest("things"))


async def test_a_channel_without_a_table_has_no_rows(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    page = await PageReader(TableAccess(MEMORY)).read(pool, PageRequest("news"))
    assert page.rows == ()
    assert page.end is None


async def test_a_table_that_is_dropped_or_ordered_otherwise_ends_the_walk(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
) -> None:
    await watch(writer, "id int, note text", "id")
    await writer.execute("INSERT INTO things SELECT n, n FROM generate_series(1, 9) n")
    reader = PageReader(TableAccess(MEMORY))
    page = await reader.read(pool, PageRequest("things", limit=3))
    following = PageRequest("things", after=page.end, limit=3)
    await writer.execute("ALTER TABLE things ALTER id TYPE bigint")
    with pytest.raises(CursorLost, match="the primary key has changed"):
        await reader.read(pool, following)
    page = await reader.read(pool, PageRequest("things", limit=3))
    assert keys([page]) == ["[1]", "[2]", "[3]"]
    await writer.execute("DROP TABLE things")
    with pytest.raises((LogUnavailable, CursorLost)):
        await reader.read(pool, replace(following, after=page.end))


async def test_a_locked_table_holds_up_no_other_channel(
    pool: asyncpg.Pool,
    writer: asyncpg.Connection,
    core_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.database.budget.LOCK_SECONDS", 60.0)
    await watch(writer, "id int", "id")
    await writer.execute("CREATE TABLE others (id int PRIMARY KEY)")
    await writer.execute("SELECT brain.watch('others', 'others', '{id}')")
    reader = PageReader(TableAccess(MEMORY, 60.0))
    async with locked(core_database, "things"):
        waiting = asyncio.create_task(reader.read(pool, PageRequest("things")))
        for _ in range(5):
            await reader.read(pool, PageRequest("others"))
        assert not waiting.done()
    assert (await waiting).rows == ()


async def test_a_slow_page_holds_up_no_other_of_its_channel(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        """
        CREATE FUNCTION slowly() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep(60); RETURN true; END $$;
        CREATE TABLE things (id int PRIMARY KEY);
        INSERT INTO things SELECT generate_series(1, 9);
        ALTER TABLE things ENABLE ROW LEVEL SECURITY;
        CREATE POLICY slowly ON things AS RESTRICTIVE USING (id < 9 OR slowly());
        SELECT brain.watch('things', 'things', '{id}', row_security => 'ignored');
        """
    )
    reader = PageReader(TableAccess(MEMORY, 30.0))
    numbers = range(1, 9)
    requests = [PageRequest("things", key=str(number)) for number in (9, *numbers)]
    slow, *others = [asyncio.create_task(reader.read(pool, request)) for request in requests]
    for number, page in zip(numbers, await asyncio.gather(*others), strict=True):
        assert keys([page]) == [f"[{number}]"]
    # It is known to be slow by now: nobody waits for it.
    await asyncio.gather(*(reader.read(pool, request) for request in requests[1:]))
    assert not slow.done()
    await writer.execute(
        "SELECT pg_cancel_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event = 'PgSleep'"
    )
    with pytest.raises(LogUnavailable):
        await slow


async def test_a_page_that_cannot_be_read_is_refused_and_those_read_with_it_are_not(
    pool: asyncpg.Pool, writer: asyncpg.Connection
) -> None:
    await writer.execute(
        """
        CREATE FUNCTION fail() RETURNS boolean LANGUAGE plpgsql AS
            $$ BEGIN RAISE 'secret'; END $$;
        CREATE TABLE things (id int PRIMARY KEY);
        INSERT INTO things SELECT generate_series(1, 9);
        ALTER TABLE things ENABLE ROW LEVEL SECURITY;
        CREATE POLICY fails ON things AS RESTRICTIVE USING (id < 9 OR fail());
        SELECT brain.watch('things', 'things', '{id}', row_security => 'ignored');
        """
    )
    reader = PageReader(TableAccess(MEMORY, 30.0))
    requests = [PageRequest("things", key=str(number)) for number in range(1, 10)]
    pages = await asyncio.gather(
        *(reader.read(pool, request) for request in requests), return_exceptions=True
    )
    *found, failure = pages
    assert [keys([page]) for page in found if isinstance(page, Page)] == [
        [f"[{number}]"] for number in range(1, 9)
    ]
    assert isinstance(failure, LogUnavailable)
    assert str(failure) == "things cannot be read: the query fails"
