"""Pages of the log: how large they are, and what a page does that cannot be read as it is."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from uuid import uuid4

import asyncpg
import pytest

from brain.database.connection import connected
from brain.database.log import PAGE_BYTES, PAGE_EVENTS, SHRINK, Log
from brain.database.migrations import migrate
from brain.database.schema_files import core_schema
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.problems import Problems
from tests.database.log_reading import keys, parsed, reading
from tests.database.stage import rewrite
from tests.postgres import named
from tests.tasks import insert

pytestmark = pytest.mark.postgres_versions

MEBIBYTE = 1024 * 1024
THINGS = """
    CREATE TABLE {0} (id int PRIMARY KEY, a text);
    SELECT brain.watch('{0}', '{0}', '{{id,a}}', column_bytes => 2097152, row_bytes => 4194304);
"""
LARGE = f"INSERT INTO things SELECT n, repeat('x', {MEBIBYTE}) FROM generate_series($1::int, $2) n"


async def every_page(
    read: Callable[[Cursor], Awaitable[Batch]], cursor: Cursor, end: Cursor
) -> list[tuple[Event, ...]]:
    pages = []
    while cursor != end:
        batch = await read(cursor)
        assert batch.cursor.place > cursor.place
        pages.append(batch.events)
        cursor = batch.cursor
    return [page for page in pages if page]


def bytes_of(page: tuple[Event, ...]) -> int:
    return sum(len(event.data or "") + len(event.old or "") for event in page)


@pytest.mark.one_version
@pytest.mark.parametrize("transactions", [1, 4, 100])
async def test_a_hundred_large_events_come_in_pages_of_bounded_size(
    core_database: str, transactions: int
) -> None:
    writer = await asyncpg.connect(core_database)
    await writer.execute(THINGS.format("things"))
    async with reading(core_database) as log:
        start = await log.tick()
        each = 100 // transactions
        for number in range(0, 100, each):
            await writer.execute(LARGE, number, number + each - 1)
        await writer.close()
        # All in one tick, the transactions too, or a tick of its own for each page.
        end = await log.tick()

        for read in (log.newest, log.after):
            pages = await every_page(read, start, end)

            assert keys(event for page in pages for event in page) == [[n] for n in range(100)]
            for page in pages[:-1]:
                assert PAGE_BYTES <= bytes_of(page) < PAGE_BYTES + MEBIBYTE + 100
            assert len(pages) == 100 * MEBIBYTE // PAGE_BYTES
            # From the middle of a page the rest is the same.
            third = pages[0][2].cursor
            rest = await every_page(read, third, end)
            assert keys(event for page in rest for event in page) == [[n] for n in range(3, 100)]


async def test_small_events_between_large_ones_are_neither_lost_nor_doubled(
    core_database: str,
) -> None:
    writer, late = [await asyncpg.connect(core_database) for _ in range(2)]
    await writer.execute(THINGS.format("things"))
    async with reading(core_database) as log:
        start = await log.tick()
        await late.execute("BEGIN")
        await late.execute(LARGE, 100, 105)
        async with writer.transaction():
            await writer.execute(LARGE, 0, 6)
            await writer.execute("INSERT INTO things SELECT n, 'x' FROM generate_series(7, 30) n")
        await log.tick()
        await late.execute(LARGE, 106, 108)
        await late.execute("COMMIT")
        await writer.execute("UPDATE things SET a = 'y'")
        await writer.close()
        await late.close()
        end = await log.tick()

        pages = await every_page(log.after, start, end)

    found = [(event.operation.value, parsed(event.key)[0]) for page in pages for event in page]
    assert found[:31] == [("I", n) for n in range(31)]
    assert found[31:40] == [("I", n) for n in range(100, 109)]
    assert sorted(found[40:]) == [("U", n) for n in [*range(31), *range(100, 109)]]


async def test_of_a_page_that_does_not_come_in_time_a_part_is_asked_for(
    database: str, connection: asyncpg.Connection
) -> None:
    """A server that never answers for more than a hundred events at once."""
    async with reading(database) as log:
        start = await log.tick()
        async with connection.transaction():
            await insert(connection, *[f"{number:04}" for number in range(100)])
        end = await log.tick()
    begin = "at_tick := tick;"
    wait = "IF most > 100 THEN PERFORM pg_advisory_lock(1); END IF;"
    await rewrite(connection, "read", (begin, begin + wait))
    await connection.execute("SELECT pg_advisory_lock(1)")
    async with connected(database) as session:
        pages = await every_page(Log(session, 0.3).after, start, end)

    assert len(pages[0]) == PAGE_EVENTS // SHRINK
    found = [event.key_text for page in pages for event in page]
    assert found == [f"{number:04}" for number in range(100)]


async def test_a_page_that_never_comes_times_out(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
    await rewrite(connection, "read", ("at_tick := tick;", "PERFORM pg_advisory_lock(1);"))
    await connection.execute("SELECT pg_advisory_lock(1)")
    async with connected(database) as session:
        with pytest.raises(TimeoutError):
            await Log(session, 0.05).after(start)


@asynccontextmanager
async def database_in(server: str, encoding: str) -> AsyncIterator[str]:
    """Yield the URL of a database whose texts are stored in an encoding."""
    name = f"test_{uuid4().hex}"
    admin = await asyncpg.connect(server)
    await admin.execute(
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
    )
    try:
        url = named(server, name)
        await migrate(url, [core_schema()])
        yield url
    finally:
        await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
        await admin.close()


# An encoding, and a text in it with a character that has no equivalent in UTF-8, as bytes.
STRANGE = [
    ("WIN1252", r"\x676fc3a98164"),
    ("EUC_JP", r"\x676f8ffefe64"),
    ("EUC_JP", r"\x676fadfe64"),
]


@pytest.mark.parametrize(("encoding", "value"), STRANGE)
@pytest.mark.parametrize("way", ["newest", "after"])
async def test_a_character_without_an_equivalent_is_replaced_and_reported(
    postgres: str, encoding: str, value: str, way: str
) -> None:
    async with database_in(postgres, encoding) as url:
        writer = await asyncpg.connect(url)
        await writer.execute(THINGS.format("things") + THINGS.format("others"))
        async with connected(url) as session:
            problems = Problems()
            log = Log(session, 10, problems)
            start = await log.tick()
            await writer.execute("INSERT INTO others VALUES (1, 'before')")
            await writer.execute(
                f"INSERT INTO things VALUES (7, convert_from('{value}'::bytea, '{encoding}'))"
            )
            await writer.execute("UPDATE things SET id = 8")
            await writer.execute("INSERT INTO others VALUES (2, 'after')")
            end = await log.tick()
            await writer.close()

            pages = await every_page(getattr(log, way), start, end)

    events = [event for page in pages for event in page]
    assert [event.operation.value for event in events] == list("IIDUI")
    others = [event for event in events if event.channel == "others"]
    assert [parsed(event.data) for event in others] == [
        {"id": 1, "a": "before"},
        {"id": 2, "a": "after"},
    ]
    _, inserted, gone, moved, _ = events
    repaired = parsed(inserted.data)["a"]
    assert repaired.isascii() and repaired.startswith("go?") and repaired.endswith("?d")
    assert parsed(gone.old) == {"id": 7, "a": repaired}
    assert parsed(moved.data) == {"id": 8, "a": repaired}
    found = {problem.address: problem for problem in problems.recent()}
    assert found.keys() == {"log", "log things"}
    assert (found["log things"].count, found["log things"].channel) == (3, "things")
    assert found["log things"].text.endswith("[8]")


async def test_an_event_that_never_comes_resets_its_channel_alone(postgres: str) -> None:
    """A text for whose repair the time does not suffice."""
    async with database_in(postgres, "EUC_JP") as url:
        writer = await asyncpg.connect(url)
        await writer.execute(THINGS.format("things") + THINGS.format("others"))
        wait = "IF length(value) > 1000 THEN PERFORM pg_advisory_lock(1); END IF; "
        await rewrite(writer, "repaired", ("PERFORM convert_to", wait + "PERFORM convert_to"))
        await writer.execute("SELECT pg_advisory_lock(1)")
        async with connected(url) as session:
            problems = Problems()
            log = Log(session, 0.3, problems)
            start = await log.tick()
            await writer.execute(
                "INSERT INTO others SELECT n, 'before' FROM generate_series(1, 40) n"
            )
            await writer.execute(
                r"INSERT INTO things VALUES (1, repeat(convert_from('\xadfe', 'EUC_JP'), 2000))"
            )
            await writer.execute("INSERT INTO others VALUES (41, 'after')")
            end = await log.tick()

            pages = await every_page(log.after, start, end)
            again = await every_page(log.newest, start, end)
        await writer.close()

    events = [event for page in pages for event in page]
    assert [event.channel for event in events] == ["others"] * 40 + ["things", "others"]
    assert [event.operation for event in events if event.channel == "things"] == [Operation.RESET]
    assert [event.id for page in again for event in page] == [event.id for event in events]
    assert {problem.address for problem in problems.recent()} == {"log", "log things"}


async def test_a_user_whose_name_has_no_equivalent_is_nobody(postgres: str) -> None:
    async with database_in(postgres, "EUC_JP") as url:
        writer = await asyncpg.connect(url)
        strange = r"'AB' || convert_from('\xadfe', 'EUC_JP')"
        async with reading(url) as log:
            start = await log.tick()
            await writer.execute(f"SELECT brain.publish('news', 'x', '1', {strange})")
            await writer.execute("SELECT brain.publish('news', 'x', '1', 'AB?')")
            await writer.execute("SELECT brain.publish('news', 'x', '1')")
            end = await log.tick()
            events = [event for page in await every_page(log.after, start, end) for event in page]
        await writer.close()

    assert [event.recipient for event in events] == ["", "AB?", None]


async def test_a_long_text_with_many_strange_characters_is_repaired_in_parts(postgres: str) -> None:
    async with database_in(postgres, "EUC_JP") as url:
        session = await asyncpg.connect(url)
        ((repaired, short),) = await session.fetch(
            r"""
            SELECT brain.repaired(repeat('x', 50000) || repeat(t, 300000) || repeat('x', 50000)),
                   brain.repaired('x' || t || 'x')
              FROM convert_from('\x61a4a2adfe', 'EUC_JP') t
            """
        )
        await session.close()

    assert repaired == "x" * 50_000 + "a??" * 300_000 + "x" * 50_000
    assert short == "xa??x"


async def test_a_damaged_value_resets_its_channel_alone(database: str, postgres: str) -> None:
    """The chunks of a large value are missing, as after a disk has lost a page."""
    writer = await asyncpg.connect(database)
    await writer.execute(THINGS.format("things") + THINGS.format("others"))
    random = "(SELECT string_agg(md5(n::text), '') FROM generate_series(1, 1000) n)"
    async with connected(database) as session:
        problems = Problems()
        log = Log(session, 10, problems)
        start = await log.tick()
        await writer.execute("INSERT INTO others VALUES (1, 'before')")
        await writer.execute(f"INSERT INTO things VALUES (1, {random})")
        await writer.execute(f"INSERT INTO others VALUES (2, {random})")
        await writer.execute(THIS_VALUE)
        await writer.close()
        end = await log.tick()

        pages = await every_page(log.after, start, end)
        again = await every_page(log.newest, start, end)

    events = [event for page in pages for event in page]
    assert [(event.channel, event.operation) for event in events] == [
        ("others", Operation.INSERT),
        ("things", Operation.RESET),
        ("others", Operation.INSERT),
    ]
    assert (events[1].key, events[1].old) == (None, None)
    assert parsed(events[1].data) == "a change cannot be read from the log"
    assert len(parsed(events[2].data)["a"]) == 32_000
    assert [event.id for page in again for event in page] == [event.id for event in events]
    assert {problem.address for problem in problems.recent()} == {"log", "log things"}


# Removes the chunks of the only large value on the channel `things`.
THIS_VALUE = """
    DO $$
    DECLARE
        toast oid := (SELECT reltoastrelid FROM pg_class WHERE oid = 'brain.events_0'::regclass);
        chunk oid;
    BEGIN
        SET LOCAL allow_system_table_mods = on;
        UPDATE pg_class SET relkind = 'r' WHERE oid = toast;
        EXECUTE format('SELECT min(chunk_id) FROM %s', toast::regclass) INTO chunk;
        EXECUTE format('DELETE FROM %s WHERE chunk_id = %s', toast::regclass, chunk);
        UPDATE pg_class SET relkind = 't' WHERE oid = toast;
    END $$;
"""
