"""Messages that are meant for one user alone, and nodes that do not know of such messages yet."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import pytest

from brain.client import messages as client
from brain.database.log import PAGE_EVENTS
from brain.database.messages import publish
from brain.database.migrations import migrate, shipped
from brain.errors import MessageRefused
from tests.database.changes import logged_events, rung
from tests.database.log_reading import batches_after, events_after, reading
from tests.postgres import new_database, ordinary_role
from tests.tasks import insert

# How nodes read, and backends publish, that know of nothing after 0009_nodes.
FORMER = 9
FORMER_READ = """
    SELECT at_tick, at_nonce, id, at, channel, type, operation, key, data, old
      FROM brain.read($1, $2, $3,
                      least((SELECT max(id) FROM brain.ticks), ($1::bigint / 1024 + 1) * 1024), $4)
"""
FORMER_PUBLISH = "SELECT brain.publish($1, $2, $3::text::jsonb)"
TO_ANN = "SELECT brain.publish('news', 'hello', '{}', 'ann')"
TO_ALL = "SELECT brain.publish('news', 'hello', '{}')"


@pytest.fixture
async def former(postgres: str) -> AsyncIterator[str]:
    """The URL of a database as the version before left it."""
    async with new_database(postgres) as url:
        await migrate(url, shipped()[:FORMER])
        yield url


async def test_a_message_to_one_user_is_logged_with_that_user(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await publish(connection, "news", "hello", {"n": 1}, "ann")
        await client.publish("news", "hello", {"n": 2}, audience="bob", connection=connection)
        await publish(connection, "news", "hello", {"n": 3})
        await insert(connection, "a")
        events = await events_after(log, start)

    assert [event.audience for event in events] == ["ann", "bob", None, None]
    assert [event.data["n"] for event in events[:3]] == [1, 2, 3]


async def test_the_audience_is_read_in_the_middle_of_a_tick_too(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await connection.execute(
            "SELECT brain.publish('news', 'hello', '1', (n % 2)::text)"
            "  FROM generate_series(1, $1) n",
            PAGE_EVENTS + 10,
        )
        first, second = await batches_after(log, start)

    assert [event.audience for event in first] == ["1", "0"] * (PAGE_EVENTS // 2)
    assert [event.audience for event in second] == ["1", "0"] * 5


async def test_a_message_to_one_user_rings_for_whoever_sleeps(
    database: str, connection: asyncpg.Connection
) -> None:
    assert await rung(database, connection, TO_ANN) == [True]


async def test_what_is_left_out_is_for_everybody(
    database: str, connection: asyncpg.Connection
) -> None:
    (event,) = await logged_events(
        database, connection, "SELECT brain.publish('news', 'hello', audience => NULL)"
    )

    assert (event.audience, event.data) == (None, {})


@pytest.mark.parametrize(
    ("channel", "audience", "why"),
    [
        ("news", "", "1 to 255"),
        ("news", "x" * 256, "1 to 255"),
        ("brain.revocations", None, "own"),
        ("brain.", "ann", "own"),
    ],
    ids=["nobody", "too long", "a channel of Brain's", "one that may be some day"],
)
async def test_what_cannot_be_told_so_is_refused_with_the_reason(
    connection: asyncpg.Connection, channel: str, audience: str | None, why: str
) -> None:
    with pytest.raises(MessageRefused, match=why):
        await publish(connection, channel, "hello", {}, audience)


async def test_the_longest_name_is_an_audience(
    database: str, connection: asyncpg.Connection
) -> None:
    async with reading(database) as log:
        start = await log.tick()
        await publish(connection, "brains", "hello", {}, "é" * 255)
        (event,) = await events_after(log, start)

    assert event.audience == "é" * 255


async def test_the_writers_of_watched_tables_pay_nothing_for_it(
    former: str,
) -> None:
    connection = await asyncpg.connect(former)
    source = "SELECT prosrc FROM pg_proc WHERE oid = 'brain.capture_1()'::regprocedure"
    before = await connection.fetchval(source)

    await migrate(former, shipped())
    await connection.execute("SELECT brain.write_capture(w) FROM brain.watched w")

    assert await connection.fetchval(source) == before
    await connection.close()


async def test_a_node_of_the_former_version_goes_on_reading_and_is_not_told_what_is_for_one_user(
    former: str,
) -> None:
    """It would tell that to everybody. It misses nothing else, however small its pages are."""
    connection = await asyncpg.connect(former)
    node = await asyncpg.connect(former)
    cursor = await node.fetchval("SELECT ARRAY[id, nonce] FROM brain.tick()")
    read = await node.prepare(FORMER_READ)
    after = 9223372036854775807
    await connection.execute(TO_ALL)
    await node.fetchval("SELECT brain.tick()")
    (first, _) = await read.fetch(*cursor, after, 1000)

    await migrate(former, shipped())
    async with connection.transaction():
        for number in range(20):
            await connection.execute(TO_ANN if number % 3 else TO_ALL)
    newest = await node.fetchrow("SELECT id, nonce FROM brain.tick()")
    assert newest is not None

    heard, place = [], (first["at_tick"], first["at_nonce"], first["id"])
    for _ in range(20):
        rows = await read.fetch(*place, 2)
        end = rows.pop()
        heard += [row["id"] for row in rows]
        place = (
            tuple(rows[-1][name] for name in ("at_tick", "at_nonce", "id"))
            if len(rows) == 2
            else (end["at_tick"], end["at_nonce"], after)
        )
    public = "SELECT id FROM brain.events WHERE audience IS NULL AND id > $1 ORDER BY id"
    assert heard == [row["id"] for row in await connection.fetch(public, first["id"])]
    assert len(heard) == 7
    assert place == (newest["id"], newest["nonce"], after)
    await node.close()
    await connection.close()


async def test_a_backend_of_the_former_version_goes_on_publishing(former: str) -> None:
    connection = await asyncpg.connect(former)
    prepared = await connection.prepare(FORMER_PUBLISH)
    await prepared.fetch("news", "before", "1")

    await migrate(former, shipped())
    await prepared.fetch("news", "after", "2")

    told = "SELECT array_agg(type ORDER BY id) FROM brain.events"
    assert await connection.fetchval(told) == ["before", "after"]
    await connection.close()


async def test_a_backend_of_this_version_publishes_before_the_database_is_brought_up_to_date(
    former: str,
) -> None:
    connection = await asyncpg.connect(former)

    await publish(connection, "news", "hello", {})

    assert await connection.fetchval("SELECT type FROM brain.events") == "hello"
    await connection.close()


async def test_whoever_might_publish_still_may_and_nobody_else(former: str, postgres: str) -> None:
    connection = await asyncpg.connect(former)
    may = """
        SELECT has_function_privilege($1, p.oid, 'EXECUTE'),
               has_function_privilege($1, p.oid, 'EXECUTE WITH GRANT OPTION')
          FROM pg_proc p WHERE p.oid = 'brain.publish'::regproc
    """
    async with (
        ordinary_role(postgres) as (one, _),
        ordinary_role(postgres) as (passing_on, _),
        ordinary_role(postgres) as (stranger, _),
    ):
        grant = "GRANT EXECUTE ON FUNCTION brain.publish TO"
        await connection.execute(f"{grant} {one}; {grant} {passing_on} WITH GRANT OPTION")

        await migrate(former, shipped())

        rights = {
            role: tuple(await connection.fetchrow(may, role) or ())
            for role in (one, passing_on, stranger)
        }
        await connection.close()

    assert list(rights.values()) == [(True, False), (True, True), (False, False)]
