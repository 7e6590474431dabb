"""Clients of brain.v1 on a real server and database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

import brain
from brain.app import build_app
from brain.message.cursor import Cursor
from brain.session.awaited import MOST_AWAITED
from brain.settings import Settings
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

ORDERS = """
    CREATE TABLE orders (id bigint PRIMARY KEY, status text, total numeric);
    SELECT brain.watch('orders', 'orders', '{id,status,total}');
    CREATE TABLE shelves (room text, number int, load text, PRIMARY KEY (room, number));
    SELECT brain.watch('shelves', 'shelves', '{room,number,load}');
"""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    settings = Settings(messages_per_second=1000)
    async with served(build_app(database, settings)) as (port, _):
        yield port


def shown(frame: dict[str, Any]) -> dict[str, Any]:
    """Return a frame without what differs from run to run."""
    return {k: v for k, v in frame.items() if k not in ("at", "cursor", "txid", "sub", "channel")}


async def test_a_client_is_greeted_and_its_subprotocol_is_accepted(port: int) -> None:
    async with v1_client(port, subprotocols=["other", "brain.v1"]) as client:
        assert client.websocket.subprotocol == "brain.v1"
        assert client.hello["protocol"] == "brain.v1"
        assert client.hello["version"] == brain.__version__
        assert client.hello["user"] is None
        Cursor.parse(client.hello["cursor"])


async def test_rows_come_with_their_operation_key_and_transaction(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        answer = await client.subscribe("orders")
        sub = answer["sub"]
        assert answer["columns"] == ["id", "status", "total"]

        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1.50)")
        await connection.execute("UPDATE orders SET status = 'paid'")
        await connection.execute("DELETE FROM orders")
        await connection.execute("TRUNCATE orders")
        await connection.execute("SELECT brain.publish('orders', 'orders_updated', '{\"id\": 1}')")
        frames = await client.frames(5)

    new = {"id": 1, "status": "new", "total": 1.5}
    paid = new | {"status": "paid"}
    assert [shown(frame) for frame in frames] == [
        {"op": "insert", "key": [1], "row": new, "last": True},
        {"op": "update", "key": [1], "row": paid, "old": new, "last": True},
        {"op": "delete", "key": [1], "old": paid, "last": True},
        {"op": "truncate", "last": True},
        {"op": "message", "type": "orders_updated", "data": {"id": 1}, "last": True},
    ]
    assert {frame["sub"] for frame in frames} == {sub}
    assert {frame["channel"] for frame in frames} == {"orders"}
    assert len({frame["txid"] for frame in frames}) == 5


async def test_the_transaction_of_a_row_is_the_one_that_the_writer_had(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        await client.subscribe("orders")
        async with connection.transaction():
            await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
            id = await connection.fetchval("SELECT pg_current_xact_id()::text")

        assert (await client.receive())["txid"] == id


async def test_digits_are_those_of_postgresql_and_long_numbers_are_strings_if_asked_for(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        plain = await client.subscribe("orders")
        exact = await client.subscribe("orders", numbers="string")
        assert exact["numbers"] == "string"
        assert exact["sub"] != plain["sub"]
        await connection.execute(
            "INSERT INTO orders VALUES (9007199254740993, 'new', 12345678901234567890.10)"
        )
        texts = [await client.websocket.recv() for _ in range(2)]

    assert '"key":[9007199254740993],' in str(texts[0])
    assert '"total" : 12345678901234567890.10' in str(texts[0])
    assert '"key":["9007199254740993"],' in str(texts[1])
    assert '"total" : "12345678901234567890.10"' in str(texts[1])


async def test_a_row_in_two_subscriptions_comes_once_for_each(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        subs = [
            (await client.subscribe("orders", **options))["sub"]
            for options in ({}, {"key": [1]}, {"where": {"status": "new"}}, {"key": [2]})
        ]
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        frames = [*await client.frames(3), *await client.until_pong()]

    assert [frame["sub"] for frame in frames] == subs[:3]
    assert all(frame["last"] for frame in frames)


async def test_two_clients_of_the_same_topic_have_the_same_number_and_get_the_same_bytes(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as one, v1_client(port) as two:
        await two.subscribe("shelves")
        where = {"status": "new", "total": 1}
        first = await one.subscribe("orders", where=where)
        second = await two.subscribe("orders", where=dict(reversed(where.items())))
        assert first["sub"] == second["sub"]
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")

        assert await one.websocket.recv() == await two.websocket.recv()


async def test_a_row_that_enters_a_filter_is_inserted_and_one_that_leaves_it_leaves(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    async with v1_client(port) as client:
        await client.subscribe("orders", where={"status": "paid"})
        for status in ("paid", "paid twice", "paid"):
            await connection.execute("UPDATE orders SET status = $1", status)
        await connection.execute("UPDATE orders SET total = 2")
        frames = [shown(frame) for frame in await client.frames(4)]

    paid = {"id": 1, "status": "paid", "total": 1}
    insert = {"op": "insert", "key": [1], "row": paid, "last": True}
    assert frames == [
        insert,
        {"op": "leave", "key": [1], "last": True},
        insert,
        {"op": "update", "key": [1], "row": paid | {"total": 2}, "old": paid, "last": True},
    ]


async def test_one_row_is_named_by_the_values_of_its_key(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        answer = await client.subscribe("shelves", key=["a:b", 7])
        assert answer["key"] == ["a:b", 7]
        await connection.execute("INSERT INTO shelves VALUES ('a', 7, 'x'), ('a:b', 7, 'y')")

        frames = [*await client.frames(1), *await client.until_pong()]
        assert [frame["key"] for frame in frames] == [["a:b", 7]]


async def test_nothing_comes_after_a_subscription_has_ended(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        sub = (await client.subscribe("orders"))["sub"]
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await client.receive()

        assert await client.ask("unsubscribe", sub=sub) == {"type": "unsubscribed", "sub": sub}
        await connection.execute("INSERT INTO orders VALUES (2, 'new', 1)")
        other = await client.subscribe("shelves")
        await connection.execute("INSERT INTO shelves VALUES ('a', 1, 'x')")

        assert (await client.receive())["sub"] == other["sub"] != sub
        again = await client.ask("unsubscribe", sub=sub)
        assert (again["type"], again["code"]) == ("error", "unknown_subscription")


async def test_a_subscription_resumes_after_its_cursor_and_says_when_it_has_caught_up(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        await client.subscribe("orders")
        await connection.execute(
            "INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, 3) n"
        )
        cursor = (await client.frames(3))[0]["cursor"]
    async with v1_client(port) as client:
        live = await client.subscribe("shelves")
        answer = await client.subscribe("orders", after=cursor)
        assert answer["cursor"] == cursor
        frames = await client.frames(3)
        await connection.execute("INSERT INTO orders VALUES (4, 'new', 4)")
        await connection.execute("INSERT INTO shelves VALUES ('a', 1, 'x')")
        frames += await client.frames(2)

    assert [frame.get("key", frame["op"]) for frame in frames] == [[2], [3], "live", [4], ["a", 1]]
    assert [frame.get("last", False) for frame in frames] == [False, True, False, True, True]
    assert [frame["sub"] for frame in frames] == [answer["sub"]] * 4 + [live["sub"]]


async def test_a_cursor_that_the_log_does_not_hold_resets_that_subscription_alone(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        other = await client.subscribe("shelves")
        for after in ("no cursor", "99.1.1"):
            answer = await client.subscribe("orders", after=after)
            reset, live = await client.frames(2)
            assert (reset["op"], live["op"]) == ("reset", "live")
            assert reset["sub"] == live["sub"] == answer["sub"] != other["sub"]

        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        assert (await client.receive())["op"] == "insert"


async def malformed(client: V1Client, text: str) -> dict[str, Any]:
    await client.websocket.send(text)
    answer = await client.receive()
    assert answer["type"] == "error"
    return answer


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"type": "subscribe", "channel": "orders", "where": {"nosuch": 1}}, "invalid_filter"),
    ({"type": "subscribe", "channel": "orders", "where": {"status": []}}, "invalid_filter"),
    ({"type": "subscribe", "channel": "brain.watches"}, "not_allowed"),
    ({"type": "subscribe", "channel": "orders", "key": [[1]]}, "malformed"),
    ({"type": "subscribe", "channel": "orders", "key": []}, "malformed"),
    ({"type": "subscribe", "channel": "a\0b"}, "malformed"),
    ({"type": "subscribe", "channel": ""}, "malformed"),
    ({"type": "subscribe"}, "malformed"),
    ({"type": "subscribe", "channel": "orders", "colour": 1}, "malformed"),
    ({"type": "nothing"}, "malformed"),
    ({"type": "unsubscribe", "sub": 999}, "unknown_subscription"),
    ({"type": "presence", "status": "away"}, "user_needed"),
    ({"type": "presence", "status": "bored"}, "malformed"),
    ({"type": "publish", "channel": "brain.x", "message_type": "t"}, "not_allowed"),
    (
        {"type": "publish", "channel": "news", "message_type": "t", "data": "\0"},
        "invalid_message",
    ),
]


async def test_a_frame_that_cannot_be_carried_out_is_answered_by_an_error_with_advice(
    port: int,
) -> None:
    for frame, code in REFUSED:
        async with v1_client(port) as client:
            answer = await client.ask(**frame)

            assert (answer["type"], answer["code"]) == ("error", code), frame
            assert answer["message"]
            assert answer["advice"]


async def test_what_is_no_frame_is_answered_by_an_error_without_an_id(port: int) -> None:
    for text in ("no JSON", "[]", '"x"', "1", '{"type": "subscribe", "id": 1}'):
        async with v1_client(port) as client:
            answer = await malformed(client, text)

            assert answer["code"] == "malformed", text
            assert "id" not in answer


async def test_a_published_message_reaches_subscribers_as_it_was_written(port: int) -> None:
    async with v1_client(port) as client:
        await client.subscribe("news")
        await client.websocket.send(
            '{"type": "publish", "id": "p", "channel": "news", "message_type": "greeting",'
            ' "data": {"n": 12345678901234567890.10}}'
        )
        frames = {frame.get("type"): frame for frame in await client.frames(2)}
        text = json.dumps(frames["greeting"])

    assert frames["published"]["txid"] == frames["greeting"]["txid"]
    assert frames["greeting"]["op"] == "message"
    assert "private" not in text


WRITE = "INSERT INTO orders SELECT n, 'new', n FROM generate_series($1::int, $2) n"
ID = "SELECT pg_current_xact_id()::text"


async def test_until_is_answered_after_what_the_transaction_has_for_the_client(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client:
        await client.subscribe("orders")
        async with connection.transaction():
            await connection.execute(WRITE, 1, 2)
            id = await connection.fetchval(ID)
            await client.send("until", txid=id)
            assert await client.until_pong() == []
        frames = await client.frames(3)

    assert [frame.get("key") for frame in frames] == [[1], [2], None]
    assert (frames[2]["type"], frames[2]["txid"]) == ("until", id)
    assert Cursor.parse(frames[2]["cursor"]) > Cursor.parse(frames[1]["cursor"])


@pytest.mark.parametrize("statement", ["SELECT brain.publish('other', 'x', '1')", "SELECT 1"])
async def test_until_is_answered_though_no_subscription_shows_the_transaction(
    port: int, connection: asyncpg.Connection, statement: str
) -> None:
    async with v1_client(port) as client:
        await client.subscribe("orders")
        async with connection.transaction():
            await connection.execute(statement)
            id = await connection.fetchval(ID)

        answer = await client.ask("until", txid=id)
        assert (answer["type"], answer["txid"]) == ("until", id)


async def test_until_of_a_transaction_that_never_was_or_was_rolled_back_is_refused(
    port: int, connection: asyncpg.Connection
) -> None:
    transaction = connection.transaction()
    await transaction.start()
    rolled_back = await connection.fetchval(ID)
    await transaction.rollback()
    async with v1_client(port) as client:
        for txid, code in (
            (rolled_back, "rolled_back"),
            (str(2**62), "unknown_transaction"),
            (str(2**62 + 5), "unknown_transaction"),
            (str(2**64), "unknown_transaction"),
            ("0", "unknown_transaction"),
            ("x", "malformed"),
            ("", "malformed"),
        ):
            answer = await client.ask("until", txid=txid)
            assert (answer["type"], answer["code"]) == ("error", code)
        # One that ended before all ticks.
        assert (await client.ask("until", txid="3"))["type"] == "until"


async def test_a_client_waits_for_a_bounded_number_of_transactions(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as client, connection.transaction():
        id = await connection.fetchval(ID)
        ids = [await client.send("until", txid=id) for _ in range(MOST_AWAITED)]
        assert await client.until_pong() == []

        assert (await client.ask("until", txid=id))["code"] == "too_many_transactions"
        await connection.execute("SELECT brain.publish('other', 'x', '1')")
        assert len(ids) == MOST_AWAITED


async def test_a_transaction_of_many_pages_is_complete_for_live_and_for_resumed_clients(
    port: int, connection: asyncpg.Connection
) -> None:
    topics: list[dict[str, Any]] = [{}, {"where": {"status": "odd"}}, {"key": [1]}]
    async with v1_client(port) as client:
        start = client.hello["cursor"]
        for topic in topics:
            await client.subscribe("orders", **topic)
        async with connection.transaction():
            await connection.execute(
                "INSERT INTO orders SELECT n, CASE WHEN n < 1500 THEN 'odd' END, n"
                " FROM generate_series(1, 3500) n"
            )
            id = await connection.fetchval(ID)
        await client.send("until", txid=id)
        live = [await client.receive()]
        while live[-1].get("type") != "until":
            live.append(await client.receive())
    rows = [frame for frame in live if "sub" in frame]
    assert len(rows) == 3500 + 1499 + 1
    assert [frame["key"] for frame in rows if frame.get("last")] == [[3500]]
    assert live[-2]["op"] == "commit"
    assert "sub" not in live[-2]

    for topic, count in zip(topics, (3500, 1499, 1), strict=True):
        async with v1_client(port) as client:
            await client.subscribe("orders", after=start, **topic)
            resumed = [await client.receive()]
            while resumed[-1]["op"] != "live":
                resumed.append(await client.receive())
        rows = [frame for frame in resumed if "row" in frame]
        assert len(rows) == count
        ends = [f for f in resumed if f.get("last") or f["op"] == "commit"]
        assert ends
        assert all(frame["txid"] == id for frame in ends)
        assert {frame["sub"] for frame in ends} == {rows[0]["sub"]}
        assert resumed.index(ends[0]) > resumed.index(rows[-2 if count > 1 else -1])


async def test_an_idle_connection_gets_a_ping_with_a_cursor(database: str) -> None:
    settings = Settings(heartbeat_seconds=0.2)
    async with served(build_app(database, settings)) as (port, _), v1_client(port) as client:
        ping = await client.receive_any()

        assert ping["type"] == "ping"
        Cursor.parse(ping["cursor"])


@pytest.mark.parametrize(
    ("topic", "rows"),
    [
        ({}, range(1, 1201)),
        ({"where": {"status": "s7"}}, range(7, 1201, 10)),
        ({"where": {"status": "s7", "total": 17}}, [17]),
        ({"key": [42]}, [42]),
        ({"key": [9999]}, []),
    ],
)
async def test_a_snapshot_has_the_rows_of_its_subscription_and_the_changes_follow(
    port: int, connection: asyncpg.Connection, topic: dict[str, Any], rows: Any
) -> None:
    for n in (1, 601):  # a transaction of more than a page would have a commit
        await connection.execute(
            "INSERT INTO orders SELECT n, 's' || n % 10, n FROM generate_series($1::int, $2) n",
            n,
            n + 599,
        )
    async with v1_client(port) as client:
        other = await client.subscribe("shelves")
        await client.subscribe("orders", snapshot=True, **topic)
        frames = [await client.receive()]
        while frames[-1]["op"] != "live":
            frames.append(await client.receive())
        assert [frame["op"] for frame in frames[-2:]] == ["snapshot-end", "live"]
        found = [row for frame in frames[:-2] for row in frame["rows"]]
        assert sorted(row["key"][0] for row in found) == list(rows)
        assert all(row["row"]["id"] == row["key"][0] for row in found)

        await connection.execute("DELETE FROM orders WHERE id <= 600")
        await connection.execute("DELETE FROM orders")
        await connection.execute("INSERT INTO shelves VALUES ('a', 1, 'x')")
        ends = []
        while (frame := await client.receive())["sub"] != other["sub"]:
            ends.append(frame["key"][0])
        assert sorted(ends) == list(rows)


async def test_a_snapshot_comes_after_a_reset_and_not_where_the_cursor_is_good(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(WRITE, 1, 2)
    async with v1_client(port) as client:
        await client.subscribe("orders", snapshot=True, after="99.1.1")
        frames = await client.frames(4)
        await client.subscribe("orders", snapshot=True, after=frames[-1]["cursor"])
        assert (await client.receive())["op"] == "live"

    assert [frame["op"] for frame in frames] == ["reset", "snapshot", "snapshot-end", "live"]


async def test_a_snapshot_that_cannot_be_had_ends_its_subscription_alone(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "CREATE TABLE keyless (id int PRIMARY KEY, a int); INSERT INTO keyless VALUES (1, 2);"
        "SELECT brain.watch('keyless', 'keyless', '{a}')"
    )
    async with v1_client(port) as client:
        await client.subscribe("orders")
        answer = await client.subscribe("keyless", snapshot=True)
        ended, error = await client.frames(2)
        assert (ended["type"], ended["sub"]) == ("unsubscribed", answer["sub"])
        assert ended["code"] == error["code"] == "snapshot_unavailable"
        assert "primary key" in error["message"]

        await connection.execute(WRITE, 1, 1)
        assert (await client.receive())["op"] == "insert"
        assert await client.until_pong() == []


async def test_a_client_that_has_gone_while_it_waited_is_no_concern_of_one_that_stays(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port) as staying:
        async with connection.transaction():
            await connection.execute(WRITE, 1, 1)
            id = await connection.fetchval(ID)
            async with v1_client(port) as leaving:
                for client in (leaving, staying):
                    await client.send("until", txid=id)
                    assert await client.until_pong() == []

        assert (await staying.receive())["type"] == "until"
