"""Snapshots of subscriptions, page by page, while their tables change."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import asyncpg
import pytest

from brain.app import build_app
from brain.settings import Settings
from tests.database.locks import locked
from tests.session.replica import Replica
from tests.session.test_commands import token, with_secret
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
    CREATE TABLE news (id int PRIMARY KEY);
    SELECT brain.watch('news', 'news', '{id}');
"""
FILL = "INSERT INTO orders SELECT n, 's' || n % 3, n FROM generate_series(1, $1::int) n"
RESET = """
    BEGIN; SET LOCAL brain.capture = 'off'; UPDATE orders SET total = total + 1 WHERE id % 2 = 0;
    COMMIT
"""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    settings = Settings(messages_per_second=1000)
    async with served(build_app(database, settings)) as (port, _):
        yield port


async def expected(connection: asyncpg.Connection, where: str = "true") -> dict[str, Any]:
    records = await connection.fetch(
        "SELECT json_build_array(id)::text AS key, to_json(o)::text AS row"
        f" FROM orders o WHERE {where}"
    )
    return {json.dumps(json.loads(one["key"])): json.loads(one["row"]) for one in records}


async def last_transaction(connection: asyncpg.Connection) -> str:
    """Return the id of a transaction after all others, which waits for them: it has an event."""
    id: str = await connection.fetchval(
        "WITH news AS (INSERT INTO news SELECT coalesce(max(id), 0) + 1 FROM news RETURNING id)"
        " SELECT pg_current_xact_id()::text FROM news"
    )
    return id


async def follow(client: V1Client, **options: Any) -> Replica:
    answer = await client.subscribe("orders", snapshot=True, **options)
    assert "cursor" not in answer
    return Replica(answer["sub"])


async def until_page(client: V1Client) -> None:
    """Return after the first page: what the node had not yet received may come before it."""
    while (await client.receive())["op"] != "snapshot":
        pass


async def change(writer: asyncpg.Connection, chance: random.Random) -> None:
    """Change a few rows, or their keys, in one transaction."""
    async with writer.transaction():
        for _ in range(chance.randint(1, 4)):
            id, other = chance.randint(1, 60), chance.randint(1, 60)
            await writer.execute(
                chance.choice(
                    [
                        "INSERT INTO orders VALUES ($1, 's' || $2::int % 3, $2)"
                        " ON CONFLICT DO NOTHING",
                        "UPDATE orders SET status = 's' || $2::int % 3 WHERE id = $1",
                        "UPDATE orders SET total = $2 WHERE id = $1",
                        "DELETE FROM orders WHERE id = $1 AND $2::int > 0",
                        "UPDATE orders SET id = $2 WHERE id = $1 AND NOT EXISTS (SELECT FROM orders"
                        " WHERE id = $2)",
                    ]
                ),
                id,
                other,
            )


@asynccontextmanager
async def writing(database: str, seed: int) -> AsyncIterator[None]:
    """Change rows in overlapping transactions until the context ends."""
    stop = asyncio.Event()

    async def write(seed: int) -> None:
        chance = random.Random(seed)
        writer = await asyncpg.connect(database)
        while not stop.is_set():
            try:
                await change(writer, chance)
            except (asyncpg.UniqueViolationError, asyncpg.DeadlockDetectedError):
                pass
        await writer.close()

    async with asyncio.TaskGroup() as tasks:
        for number in range(2):
            tasks.create_task(write(seed + number))
        try:
            yield
        finally:
            stop.set()


@pytest.mark.parametrize("seed", [pytest.param(5221, marks=pytest.mark.postgres_versions), 5222])
@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({}, "true"),
        ({"where": {"status": "s1"}}, "status = 's1'"),
        ({"where": {"total": {"gte": 20}}}, "total >= 20"),
    ],
)
async def test_the_rows_are_those_of_the_table_whatever_is_written_meanwhile(
    port: int,
    database: str,
    connection: asyncpg.Connection,
    seed: int,
    options: dict[str, Any],
    where: str,
) -> None:
    await connection.execute(FILL, 50)
    async with v1_client(port) as client, v1_client(port) as other:
        async with writing(database, seed):
            replicas = [await follow(client, limit=3, **options)]
            replicas.append(await follow(other, **options))
            for one, replica in zip((client, other), replicas, strict=True):
                await replica.until_live(one)
        id = await last_transaction(connection)
        for one, replica in zip((client, other), replicas, strict=True):
            await replica.until_quiet(one, id)
            assert replica.rows == await expected(connection, where)
    assert replicas[0].ops.count("snapshot") > 1


@pytest.mark.parametrize("snapshot", [True, "exact"])
async def test_rows_come_again_after_a_reset_of_their_channel(
    port: int, connection: asyncpg.Connection, snapshot: object
) -> None:
    await connection.execute(FILL, 20)
    async with v1_client(port) as client:
        await client.subscribe("news")
        plain = await client.subscribe("orders", where={"status": "s1"})
        answer = await client.subscribe("orders", snapshot=snapshot)
        replica = Replica(answer["sub"])
        await replica.until_live(client)
        assert replica.rows == await expected(connection)

        await connection.execute(RESET)
        frames = [await client.receive()]
        while frames[-1]["op"] != "live":
            frames.append(await client.receive())
        for frame in frames:
            replica.apply(frame)

        assert replica.rows == await expected(connection)
        assert replica.ops.count("reset") == 1
        assert [f["op"] for f in frames if f["sub"] == plain["sub"]] == ["reset"]
        await connection.execute("DELETE FROM orders")
        await replica.until_quiet(client, await last_transaction(connection))
        assert replica.rows == {}


async def test_many_resets_during_snapshots_end_in_the_rows_of_the_table(
    port: int, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 50)
    async with v1_client(port) as client, v1_client(port) as other:
        async with writing(database, 17):
            replicas = [(one, await follow(one, limit=2)) for one in (client, other)]
            for _ in range(25):
                with suppress(asyncpg.DeadlockDetectedError):
                    await connection.execute(RESET)
                await connection.execute("ROLLBACK")
        id = await last_transaction(connection)
        for one, replica in replicas:
            await replica.until_quiet(one, id)
            assert replica.rows == await expected(connection)
            assert "reset" in replica.ops


async def test_exact_rows_are_those_of_one_moment(
    port: int, database: str, connection: asyncpg.Connection
) -> None:
    """Each transaction moves an amount from one row to another."""
    await connection.execute(FILL, 2000)
    await connection.execute("UPDATE orders SET total = 10")
    stop = asyncio.Event()

    async def move() -> None:
        chance = random.Random(1)
        writer = await asyncpg.connect(database)
        while not stop.is_set():
            async with writer.transaction():
                for amount in (1, -1):
                    await writer.execute(
                        "UPDATE orders SET total = total + $1 WHERE id = $2",
                        amount,
                        chance.randint(1, 2000),
                    )
        await writer.close()

    task = asyncio.create_task(move())
    async with v1_client(port) as client:
        for _ in range(3):
            answer = await client.subscribe("orders", snapshot="exact")
            replica = Replica(answer["sub"])
            while "snapshot-end" not in replica.ops:
                replica.apply(await client.receive())
            assert set(replica.ops) == {"snapshot", "snapshot-end"}
            assert len(replica.rows) == 2000
            assert sum(row["total"] for row in replica.rows.values()) == 20_000
            await client.ask_past("unsubscribe", sub=answer["sub"])
    stop.set()
    await task


async def test_a_subscription_ends_in_the_middle_of_its_snapshot(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 500)
    async with v1_client(port) as client:
        replica = await follow(client, limit=1)
        await until_page(client)
        await client.ask_past("unsubscribe", sub=replica.sub)
        assert await client.until_pong() == []
        again = await follow(client, limit=100)
        await again.until_live(client)
        assert again.rows == await expected(connection)


async def test_two_clients_that_ask_for_the_same_get_the_same_bytes(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 100)
    async with v1_client(port) as one, v1_client(port) as two:
        subs = [(await follow(client, limit=40)).sub for client in (one, two)]
        assert subs[0] == subs[1]
        texts: list[list[str]] = [[], []]
        for client, found in zip((one, two), texts, strict=True):
            while not found or '"live"' not in found[-1]:
                found.append(str(await client.websocket.recv()))
        pages = [[text for text in found if '"snapshot"' in text] for found in texts]
        assert pages[0] == pages[1]
        assert len(pages[0]) == 3


async def test_a_locked_table_holds_up_no_other_subscription(
    port: int, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 5)
    async with v1_client(port) as client:
        async with locked(database, "orders"):
            await client.subscribe("orders", snapshot=True)
            news = await client.subscribe("news", snapshot=True)
            ops = [(await client.receive())["op"] for _ in range(2)]
            assert ops == ["snapshot-end", "live"]
            ended, error = await client.frames(2)
            assert ended["code"] == error["code"] == "snapshot_unavailable"
            assert error["message"] == "orders cannot be read: it is locked"
        await connection.execute("INSERT INTO news VALUES (1)")
        assert (await client.receive())["sub"] == news["sub"]


async def test_a_table_that_is_dropped_in_the_middle_ends_the_subscription(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 2000)
    async with v1_client(port) as client:
        await follow(client, limit=1)
        await until_page(client)
        await connection.execute("DROP TABLE orders")
        ended: dict[str, Any] = {}
        while ended.get("type") != "unsubscribed":
            ended = await client.receive()
            assert ended.get("op") != "snapshot-end"
        assert ended["code"] == "snapshot_unavailable"


async def test_a_slow_reader_gets_all_rows_and_other_clients_wait_for_nothing(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(FILL, 3000)
    await connection.execute("UPDATE orders SET status = repeat('x', 2000)")
    async with v1_client(port, max_queue=1, ping_interval=None) as slow, v1_client(port) as quick:
        replica = await follow(slow)
        other = await follow(quick)
        await other.until_live(quick)
        await connection.execute("DELETE FROM orders WHERE id % 2 = 0")
        for _ in range(20):
            replica.apply(await slow.receive())
            await connection.execute("UPDATE orders SET total = total + 1 WHERE id < 10")
        id = await last_transaction(connection)
        for client, one in ((slow, replica), (quick, other)):
            await one.until_live(client)
            await one.until_quiet(client, id)
            assert one.rows == await expected(connection)


async def test_rules_that_change_in_the_middle_begin_the_rows_anew(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    await connection.execute(FILL, 300)
    async with (
        served(build_app(database, with_secret(messages_per_second=1000))) as (port, _),
        v1_client(port, token("s1")) as client,
    ):
        replica = await follow(client, limit=2)
        replica.apply(await client.receive())
        await connection.execute("SELECT brain.restrict('orders', '{\"status\": \"sub\"}')")
        frame: dict[str, Any] = {}
        while "replaces" not in frame:
            frame = await client.receive()
        assert frame["replaces"] == replica.sub
        replica = Replica(frame["sub"])
        await replica.until_live(client)
        assert replica.ops.count("reset") == 1
        assert replica.rows == await expected(connection, "status = 's1'")


async def test_limit_is_for_pages_alone(port: int) -> None:
    async with v1_client(port) as client:
        for options in ({"limit": 3}, {"limit": 3, "snapshot": "exact"}, {"limit": 501}):
            answer = await client.ask("subscribe", channel="orders", **options)
            assert answer["code"] == "malformed"
            assert "limit" in answer["message"]
