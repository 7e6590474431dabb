"""Streams of `/sse` on a real server and database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
from httpx2 import AsyncClient

from brain.app import build_app
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.settings import Settings
from tests.session.event_stream_client import Stream, stream
from tests.session.test_topic_session import ORDERS, shown
from tests.transport.served import application, served

MANY = "INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, 1200) n"


@pytest.fixture
async def port(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[int]:
    monkeypatch.setattr("brain.database.filter_binder.FilterBinder.poll_seconds", 0.05)
    await connection.execute(ORDERS)
    async with served(build_app(database, Settings())) as (port, _):
        yield port


def names(frames: list[dict[str, Any]]) -> list[str]:
    return [str(frame.get("op", frame.get("type"))) for frame in frames]


def cursor(stream: Stream) -> Cursor:
    """Return the cursor with which a browser would come back."""
    return Cursor.parse(stream.last_event_id)


async def snapshot(client: Stream) -> list[dict[str, Any]]:
    """Return what comes up to the end of the rows; before that no event may have an id."""
    before, frames = client.last_event_id, await client.frames(1)
    while frames[-1].get("op") != "snapshot-end":
        assert client.last_event_id == before, frames[-1]
        frames += await client.frames(1)
    return frames


async def test_a_stream_is_one_subscription_of_brain_v1(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders", where={"status": "new"}) as client:
        hello, subscribed, live = await client.frames(3)
        assert (hello["type"], hello["protocol"]) == ("hello", "brain.v1")
        assert subscribed["type"] == "subscribed"
        assert subscribed["where"] == {"status": {"eq": "new"}}
        assert (live["op"], live["sub"]) == ("live", subscribed["sub"])

        await connection.execute("INSERT INTO orders VALUES (1, 'old', 1), (2, 'new', 1.50)")
        await connection.execute("UPDATE orders SET status = 'paid'")
        frames = await client.frames(2)
    new = {"id": 2, "status": "new", "total": 1.5}
    assert [shown(frame) for frame in frames] == [
        {"op": "insert", "key": [2], "row": new, "last": True},
        {"op": "leave", "key": [2], "last": True},
    ]


async def test_the_id_of_each_event_is_its_cursor_and_a_client_goes_on_after_it(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders") as client:
        await client.until("live")
        for id in range(1, 4):
            await connection.execute("INSERT INTO orders VALUES ($1, 'new', 1)", id)
            frame = await client.frame()
            assert frame is not None and client.last_event_id == frame["cursor"]
            if id == 1:
                first = client.last_event_id
    async with stream(port, channel="orders", last_event_id=first) as client:
        frames = await client.until("live")
        assert names(frames) == ["hello", "subscribed", "insert", "insert", "live"]
        assert [frame["key"] for frame in frames[2:4]] == [[2], [3]]
        assert client.last_event_id == frames[-1]["cursor"]


async def test_the_last_event_id_precedes_the_cursor_in_the_address(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders") as client:
        await client.until("live")
        start = client.last_event_id
        await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
        await client.frame()
        end = client.last_event_id
    async with stream(port, channel="orders", after=start) as client:
        assert names(await client.until("live")) == ["hello", "subscribed", "insert", "live"]
    async with stream(port, channel="orders", after=start, last_event_id=end) as client:
        assert names(await client.until("live")) == ["hello", "subscribed", "live"]


async def test_the_rows_come_first_and_only_their_end_has_an_id(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, 1200) n"
    )
    async with stream(port, channel="orders", snapshot="", where={"status": "new"}) as client:
        frames = await snapshot(client)
        rows = [row for frame in frames for row in frame.get("rows", ())]
        assert sorted(row["key"][0] for row in rows) == list(range(1, 1201))
        assert client.last_event_id == frames[-1]["cursor"]
        await client.until("live")
        await connection.execute("INSERT INTO orders VALUES (1201, 'new', 1)")
        frame = await client.frame()
        assert frame is not None and frame["key"] == [1201]


async def test_a_client_that_is_cut_within_a_snapshot_begins_it_anew(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "INSERT INTO orders SELECT n, 'new', n FROM generate_series(1, 1200) n"
    )
    async with stream(port, channel="orders", snapshot="") as client:
        await client.until("snapshot")
        last = client.last_event_id
    async with stream(port, channel="orders", snapshot="", last_event_id=last) as client:
        frames = await client.until("snapshot-end")
    assert sum(len(frame.get("rows", ())) for frame in frames) == 1200


async def test_a_client_that_comes_back_gets_the_rows_only_after_a_reset(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
    async with stream(port, channel="orders", snapshot="true") as client:
        await client.until("live")
        last = client.last_event_id
    async with stream(port, channel="orders", snapshot="true", last_event_id=last) as client:
        assert names(await client.until("live")) == ["hello", "subscribed", "live"]
    for lost in ("99.1.1", "nonsense"):
        async with stream(port, channel="orders", snapshot="true", last_event_id=lost) as client:
            assert names(await client.frames(3)) == ["hello", "subscribed", "reset"]
            # Until it has all rows it would come back with the same id.
            assert names(await client.frames(1)) == ["snapshot"]
            assert client.last_event_id == lost
            assert names(await client.frames(2)) == ["snapshot-end", "live"]
            assert cursor(client).tick > 0
        async with stream(port, channel="orders", last_event_id=lost) as client:
            frames = await client.until("live")
            assert names(frames) == ["hello", "subscribed", "reset", "live"]


async def test_after_a_reset_of_the_channel_the_rows_come_and_nothing_before_their_end_has_an_id(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders", snapshot="") as client:
        await client.until("live")
        before = client.last_event_id
        async with connection.transaction():
            await connection.execute("SET LOCAL brain.capture = 'off'")
            await connection.execute("INSERT INTO orders VALUES (1, 'new', 1)")
            await connection.execute("SET LOCAL brain.capture = 'on'")
            await connection.execute("INSERT INTO orders VALUES (2, 'new', 1)")
        frames = await snapshot(client)
        assert frames[0]["op"] == "reset"
        assert client.last_event_id != before
        rows = [row for frame in frames for row in frame.get("rows", ())]
        assert sorted(row["key"] for row in rows) == [[1], [2]]
        await client.until("live")
        await connection.execute("INSERT INTO orders VALUES (3, 'new', 1)")
        frame = await client.frame()
        assert frame is not None and frame["key"] == [3]
    async with stream(port, channel="orders", snapshot="", last_event_id=before) as client:
        assert "reset" in names(await snapshot(client))
        await client.until("live")


async def test_a_client_that_is_cut_within_a_transaction_gets_the_rest_of_it(
    port: int, connection: asyncpg.Connection
) -> None:
    async with stream(port, channel="orders") as client:
        await client.until("live")
        async with connection.transaction():
            for id in (1, 2, 3):
                await connection.execute("INSERT INTO orders VALUES ($1, 'new', 1)", id)
        first = await client.frame()
        assert first is not None and "last" not in first
        last = client.last_event_id
    async with stream(port, channel="orders", last_event_id=last) as client:
        frames = await client.until("live")
    assert [frame.get("key") for frame in frames[2:4]] == [[2], [3]]
    assert frames[3]["last"] is True
    assert {frame["txid"] for frame in frames[2:4]} == {first["txid"]}


async def test_a_heartbeat_has_an_id_that_keeps_up_with_the_log(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with (
        served(build_app(database, Settings(heartbeat_seconds=0.1))) as (port, _),
        stream(port, channel="orders") as client,
    ):
        await client.until("live")
        start = cursor(client)
        await connection.execute("SELECT brain.publish('other', 'note', '1')")
        while cursor(client).place <= start.place:
            assert json.loads(await client.event() or "")["type"] == "ping"
        assert client.comments > 0


async def test_a_stream_that_waits_for_its_rows_is_kept_alive_by_comments(
    database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    async with served(build_app(database, Settings(heartbeat_seconds=0.05))) as (port, _):
        async with connection.transaction():
            await connection.execute("LOCK TABLE orders")
            async with stream(port, channel="orders", snapshot=True) as client:
                assert names(await client.frames(2)) == ["hello", "subscribed"]
                while client.comments < 3:
                    await client.line()


async def test_json_with_several_lines_is_one_event(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        "CREATE TABLE notes (id int PRIMARY KEY, doc json);"
        "SELECT brain.watch('notes', 'notes', '{id,doc}')"
    )
    async with stream(port, channel="notes") as client:
        await client.until("live")
        await connection.execute("INSERT INTO notes VALUES (1, E'{\"a\":\\n\\r\\n[1,\\r2]}')")
        frame = await client.frame()
        assert frame is not None and frame["row"] == {"id": 1, "doc": {"a": [1, 2]}}


async def test_one_row_and_long_numbers_as_strings(
    port: int, connection: asyncpg.Connection
) -> None:
    async with (
        stream(port, channel="orders", key=[7], numbers="string") as order,
        stream(port, channel="shelves", key=["a:b", 2]) as shelf,
    ):
        for client in (order, shelf):
            await client.until("live")
        await connection.execute(
            "INSERT INTO orders VALUES (8, 'new', 1), (7, 'new', 1.23456789012345678)"
        )
        await connection.execute("INSERT INTO shelves VALUES ('a:b', 1, ''), ('a:b', 2, '')")
        one, other = await order.frame(), await shelf.frame()
    assert one is not None and one["row"]["total"] == "1.23456789012345678"
    assert other is not None and other["key"] == ["a:b", 2]


async def test_a_stream_with_a_filter_that_cannot_be_evaluated_is_refused_with_the_reason(
    port: int,
) -> None:
    for where, reason in (
        ({"colour": 1}, "orders has no column colour; it has id, status, total"),
        ({"total": {"gt": "much"}}, "is no value of total"),
        ({"total": {"above": 1}}, "there is no comparison above"),
    ):
        async with stream(port, channel="orders", where=where) as client:
            assert client.status == 400
            assert reason in await client.body()


async def test_a_stream_gets_another_number_or_ends_if_the_columns_of_its_filter_change(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 5)")
    where = {"status": {"in": ["new"]}, "total": {"gt": 2}}
    async with stream(port, channel="orders", where=where, snapshot="") as client:
        first = (await client.until("live"))[1]
        await connection.execute("ALTER TABLE orders ALTER status TYPE char(4)")
        frames = await client.until("live")
        assert names(frames) == ["subscribed", "reset", "snapshot", "snapshot-end", "live"]
        assert frames[0]["replaces"] == first["sub"]
        assert frames[1]["sub"] == frames[0]["sub"]

        await connection.execute("ALTER TABLE orders RENAME total TO price")
        ended, error = await client.frames(2)
        assert (ended["type"], ended["code"]) == ("unsubscribed", "invalid_filter")
        assert "total was dropped or renamed" in error["message"]
        closed = await client.frame()
        assert closed is not None
        assert (closed["code"], closed["reason"]) == (4504, error["message"])
        assert await client.frame() is None


async def test_an_event_that_does_not_say_whether_a_row_matches_is_a_reset_of_a_stream(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new', 5), (2, 'old', 6)")
    async with stream(
        port, channel="orders", where={"status": {"gt": "m"}}, snapshot="true"
    ) as client:
        await client.until("live")
        before = client.last_event_id
        await connection.execute("UPDATE orders SET status = repeat('x', 3000000) WHERE id = 1")
        frame = await client.frame()
        assert frame is not None and frame["op"] == "reset"
        # Who is cut now has to get the reset again.
        assert client.last_event_id == before
        assert names(await client.until("live")) == ["snapshot", "snapshot-end", "live"]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({}, "channel: Field required"),
    ({"channel": ""}, "channel: String should have at least 1 character"),
    ({"channel": "a\0b"}, "no channel has a zero in its name"),
    ({"channel": "orders", "where": "{"}, "where must be JSON"),
    ({"channel": "orders", "where": "[]"}, "where: Input should be a valid dictionary"),
    ({"channel": "orders", "where": {"nosuch": 1}}, "where: orders has no column nosuch"),
    ({"channel": "orders", "where": "[" * 100 + "]" * 100}, "nested too deeply"),
    ({"channel": "orders", "key": "7"}, "key: Input should be a valid list"),
    ({"channel": "orders", "key": [[1]]}, "key: the values of a primary key"),
    (
        {"channel": "orders", "snapshot": "maybe"},
        "snapshot: Input should be a valid boolean or",
    ),
    ({"channel": "orders", "snapshot": "exact", "limit": "3"}, 'limit: only "snapshot": true'),
    ({"channel": "orders", "numbers": "text"}, "numbers: Input should be 'string'"),
    (
        {"channel": "orders", "cursor": "1.1.1"},
        "there is no parameter cursor; there are channel, key, where",
    ),
    ({"channel": "orders", "type": "publish"}, "there is no parameter type"),
]


@pytest.mark.parametrize(("parameters", "sentence"), REFUSED)
async def test_a_request_that_asks_for_something_impossible_is_refused_in_a_sentence(
    port: int, parameters: dict[str, Any], sentence: str
) -> None:
    async with stream(port, **parameters) as client:
        assert client.status == 400
        assert client.headers["content-type"] == "application/json"
        assert json.loads(await client.body())["error"].startswith(sentence)


async def test_a_parameter_that_is_there_twice_is_refused(port: int) -> None:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http:
        response = await http.get("/sse?channel=orders&channel=shelves")
    assert response.status_code == 400
    assert response.json() == {"error": "channel is there twice: a stream is one subscription"}


async def test_before_the_database_is_followed_a_stream_is_refused_for_later() -> None:
    hub = Hub(1_000_000, 60)
    async with (
        served(application(hub)) as (port, _),
        stream(port, channel="tasks") as client,
    ):
        assert client.status == 503
        assert hub.statistics().subscribers == 0


async def test_clients_of_streams_are_counted(port: int) -> None:
    async with (
        stream(port, channel="orders") as client,
        AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as http,
    ):
        await client.until("live")
        found = (await http.get("/api/brain/status/ws")).json()
        assert found["websocket"]["connected_clients"] == 1


async def test_pages_of_allowed_origins_alone_may_read_a_stream(database: str) -> None:
    settings = Settings.model_validate({"allowed_origins": "https://app.example"})
    async with served(build_app(database, settings)) as (port, _):
        allowed = {"Origin": "https://app.example"}
        async with stream(port, channel="tasks", headers=allowed) as client:
            assert client.status == 200
            assert client.headers["access-control-allow-origin"] == "https://app.example"
            assert client.headers["x-content-type-options"] == "nosniff"
        foreign = {"Origin": "https://other.example"}
        async with stream(port, channel="tasks", headers=foreign) as client:
            assert client.status == 403
            assert "access-control-allow-origin" not in client.headers
