"""Other tables than `tasks`, published messages and snapshots, as clients receive them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from brain.publishing.messages import publish
from tests.end_to_end.brain import RunningBrain, brain, get, message, messages, running_brain
from tests.tasks import insert

ORDERS = "CREATE TABLE orders (id int PRIMARY KEY, total numeric, note text, secret text)"


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def running(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


@asynccontextmanager
async def connected(
    running: RunningBrain, query: str
) -> AsyncIterator[tuple[ClientConnection, dict[str, Any]]]:
    """Connect to /ws with a query; yield the client and its greeting."""
    url = f"ws://localhost:{running.port}/ws?{query}"
    async with connect(url, proxy=None, max_queue=None) as client:
        yield client, await message(client)


async def test_a_table_watched_from_the_command_line_is_streamed_on_its_channel(
    running: RunningBrain, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    command = ("watch", "orders", "--columns", "id,total", "--type", "insert=order_placed")
    done = await brain(*command, BRAIN_DATABASE_URL=database)
    assert done.status == 0
    assert done.stdout.startswith("watching public.orders on the channel orders in database ")

    async with connected(running, "channel=orders") as (client, _), running.client() as plain:
        await connection.execute("INSERT INTO orders VALUES (1, 9.5, 'quick', 'hidden')")
        await connection.execute("UPDATE orders SET note = 'slow'")
        await connection.execute("DELETE FROM orders")
        placed, deleted = await messages(client, 2)
        await insert(connection, "a")
        assert (await message(plain))["data"]["id"] == "a"

    assert list(placed) == ["type", "data", "timestamp"]
    assert (placed["type"], placed["data"]) == ("order_placed", {"id": 1, "total": 9.5})
    assert (deleted["type"], deleted["data"]) == ("orders_deleted", {"id": 1, "total": 9.5})


async def test_the_command_line_finds_a_table_where_the_role_does(
    database: str, connection: asyncpg.Connection
) -> None:
    name = urlsplit(database).path.removeprefix("/")
    url = {"BRAIN_DATABASE_URL": database}
    await connection.execute("CREATE SCHEMA shop; CREATE TABLE shop.carts (id int PRIMARY KEY)")
    await connection.execute(f"ALTER DATABASE {name} SET search_path = shop")
    try:
        done = await brain("watch", "carts", "--columns", "id", **url)
        assert done.status == 0
        assert done.stdout.startswith("watching shop.carts on the channel carts in database ")
        assert "shop.carts" in (await brain("watches", **url)).stdout
        assert (await brain("unwatch", "carts", **url)).status == 0
    finally:
        await connection.execute(f"ALTER DATABASE {name} RESET search_path")
        await connection.execute("DROP SCHEMA shop CASCADE")


async def test_the_command_line_lists_watches_and_stops_them(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    url = {"BRAIN_DATABASE_URL": database}
    await brain("watch", "orders", "--columns", "id,note", "--channel", "shop", **url)
    await connection.execute("ALTER TABLE orders RENAME note TO remark")

    listed = (await brain("watches", **url)).stdout

    assert (
        "shop  public.orders (id, note) immediate\n    public.orders has changed: column note is"
        " called remark: this watches it as it is: brain watch public.orders --channel shop"
        " --columns id,remark\n"
    ) in listed
    assert "tasks  public.tasks (id, status, agent" in listed
    assert (await brain("unwatch", "orders", **url)).status == 0
    assert "orders" not in (await brain("watches", **url)).stdout


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("watch", "nowhere", "--columns", "id"), 'relation "nowhere" does not exist'),
        (("watch", "nosuch.orders", "--columns", "id"), 'schema "nosuch" does not exist'),
        (("watch", "nosuch.public.orders", "--columns", "id"), "nosuch.public.orders"),
        (("watch", "a.b.c.orders", "--columns", "id"), "a.b.c.orders"),
        (("watch", "", "--columns", "id"), "the name is empty"),
        (("watch", b"\xff".decode(errors="surrogateescape"), "--columns", "id"), "is not UTF-8"),
        (("unwatch", "nosuch.orders"), 'schema "nosuch" does not exist'),
        (("watch", "orders", "--columns", "id,wrong"), "orders has no column wrong"),
        (
            ("watch", "orders", "--columns", "id", "--channel", "tasks"),
            "that of table public.tasks",
        ),
        (("watch", "orders", "--columns", "id", "--type", "insert"), "insert=name"),
        (("watch", "orders", "--columns", "id", "--type", "add=x"), "not add"),
        (("unwatch", "orders"), "orders is not watched"),
    ],
)
async def test_a_table_that_cannot_be_watched_is_one_line_and_exit_2(
    database: str, connection: asyncpg.Connection, arguments: tuple[str, ...], why: str
) -> None:
    await connection.execute(ORDERS)

    done = await brain(*arguments, BRAIN_DATABASE_URL=database)

    assert done.status == 2
    assert done.stderr.startswith("brain: ")
    assert why in done.stderr
    assert done.stderr.count("\n") == 1


async def test_a_table_that_is_locked_is_one_line_and_exit_1(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with connection.transaction():
        await connection.execute("LOCK TABLE orders")
        done = await brain("watch", "orders", "--columns", "id", BRAIN_DATABASE_URL=database)

    assert done.status == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("brain: postgresql://")
    assert line.endswith(" reports: canceling statement due to lock timeout")


async def test_published_messages_reach_the_subscribers_of_their_channel(
    running: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with connected(running, "channel=news&channel=tasks&cursor=") as (client, _):
        await connection.execute("""SELECT brain.publish('news', 'greeting', '{"text": "hi"}')""")
        await publish("other", "unheard", connection=connection)
        await insert(connection, "a")
        await publish("tasks", "note", ["free", "form"], connection=connection)
        greeting, run, note = await messages(client, 3)

    assert (greeting["type"], greeting["data"]) == ("greeting", {"text": "hi"})
    assert (run["type"], run["data"]["id"]) == ("run_update", "a")
    assert (note["type"], note["data"]) == ("note", ["free", "form"])
    async with connected(running, f"channel=news&channel=tasks&cursor={greeting['cursor']}") as (
        client,
        _,
    ):
        assert [each["type"] for each in await messages(client, 2)] == ["run_update", "note"]


async def test_a_snapshot_comes_first_and_then_its_changes(
    running: RunningBrain, connection: asyncpg.Connection
) -> None:
    await insert(connection, "a")
    async with connected(running, "snapshot") as (client, _):
        snapshot = await message(client)
        await connection.execute("UPDATE tasks SET progress = 1")
        run = await message(client)

    assert snapshot["type"] == "snapshot"
    assert snapshot["data"]["channel"] == "tasks"
    assert [row["id"] for row in snapshot["data"]["rows"]] == ["a"]
    assert snapshot["data"]["more"] is False
    assert (run["data"]["id"], run["data"]["progress"]) == ("a", 1)
    async with connected(running, f"snapshot&cursor={snapshot['cursor']}") as (client, _):
        assert (await message(client))["data"]["progress"] == 1


async def test_after_a_reset_the_snapshot_comes_again(
    running: RunningBrain, connection: asyncpg.Connection
) -> None:
    await insert(connection, "a")
    async with connected(running, "snapshot&cursor=1.1.1") as (client, _):
        reset, snapshot = await messages(client, 2)
        await insert(connection, "b")
        run = await message(client)

    assert (reset["type"], snapshot["type"]) == ("reset", "snapshot")
    assert [row["id"] for row in snapshot["data"]["rows"]] == ["a"]
    assert run["data"]["id"] == "b"


async def test_rows_are_read_over_http_with_the_cursor_from_which_they_change(
    running: RunningBrain, connection: asyncpg.Connection
) -> None:
    await insert(connection, "a")

    status, body = await get(f"{running.http}/api/brain/snapshot/tasks")
    found = json.loads(body)
    await insert(connection, "b")

    assert status == 200
    assert found["channel"] == "tasks"
    assert [row["id"] for row in found["rows"]] == ["a"]
    async with connected(running, f"cursor={found['cursor']}") as (client, _):
        assert (await message(client))["data"]["id"] == "b"


@pytest.mark.parametrize("path", ["brain/snapshot/a%00b", "ws/channels/a%00b", "a%00b"])
async def test_a_name_that_postgresql_cannot_hold_is_not_found(
    running: RunningBrain, path: str
) -> None:
    logged = len(running.output.read_text())

    status, body = await get(f"{running.http}/api/{path}")

    assert (status, list(json.loads(body))) == (404, ["error"])
    assert "WARNING" not in running.output.read_text()[logged:]


async def test_a_channel_without_a_table_has_no_rows(running: RunningBrain) -> None:
    status, body = await get(f"{running.http}/api/brain/snapshot/nowhere")

    assert status == 404
    assert "nowhere" in json.loads(body)["error"]


async def test_tables_that_are_too_large_for_a_snapshot_are_refused_with_a_reason(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await insert(connection, "a")
    little = {"BRAIN_SNAPSHOT_BYTES": "50"}
    async with running_brain(tmp_path, "--database-url", database, **little) as running:
        status, body = await get(f"{running.http}/api/brain/snapshot/tasks")
        assert (status, "50 bytes" in body) == (413, True)

        async with connected(running, "snapshot") as (client, _):
            with pytest.raises(ConnectionClosed) as closed:
                await message(client)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 4500


async def test_problems_of_a_watched_table_are_logged_at_the_start(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("ALTER TABLE tasks DISABLE TRIGGER ALL")
    async with running_brain(tmp_path, "--database-url", database) as running:
        async with running.client():
            pass

    assert "watch tasks: a trigger is missing or disabled" in running.output.read_text()


async def test_a_client_may_ask_for_long_numbers_as_strings(
    running: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        CREATE TABLE amounts (id bigint PRIMARY KEY, n numeric);
        INSERT INTO amounts VALUES (9007199254740993, 12345678901234567890.10);
        SELECT brain.watch('amounts', 'amounts', '{id,n}');
        """
    )
    row = {"id": "9007199254740993", "n": "12345678901234567890.10"}
    query = "channel=amounts&snapshot&numbers=string"
    async with connected(running, query) as (client, _):
        assert (await message(client))["data"]["rows"] == [row]
        await connection.execute("UPDATE amounts SET n = 9.90")
        assert (await message(client))["data"] == {"id": "9007199254740993", "n": 9.9}
        await connection.execute("UPDATE amounts SET n = 1e5000")
        assert (await message(client))["data"]["n"] == "1" + "0" * 5000

    url = f"{running.http}/api/brain/snapshot/amounts"
    _, body = await get(f"{url}?numbers=string")
    assert json.loads(body)["rows"] == [{"id": "9007199254740993", "n": "1" + "0" * 5000}]
    _, body = await get(url)
    assert '"id" : 9007199254740993,' in str(body)
    status, body = await get(f"{url}?numbers=float")
    assert (status, json.loads(body)) == (400, {"error": "numbers can only be string"})
