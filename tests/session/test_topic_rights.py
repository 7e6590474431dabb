"""What clients of brain.v1 may do, and what becomes of their subscriptions when that changes."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterable
from typing import Any

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from brain.app import build_app
from brain.auth.identity import Identity
from brain.auth.policy import Authority
from brain.message.matching import ReadAccess
from brain.session.registry import SessionRegistry
from tests.session.test_commands import token, with_secret
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id text, total int);
    SELECT brain.watch('orders', 'orders', '{id,total}', rules => '{"customer_id": "sub"}',
                       exempt => '{"role": "admin"}');
"""
NEWS = "SELECT brain.publish('news', 'note', '1')"


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    settings = with_secret(max_subscriptions=3)
    async with served(build_app(database, settings)) as (port, _):
        yield port


def error_code(answer: dict[str, Any]) -> str:
    assert answer["type"] == "error"
    code: str = answer["code"]
    return code


async def close_code(client: V1Client) -> int:
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            await client.receive()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


async def test_subscribers_have_one_number_only_if_they_may_see_the_same_rows(
    port: int, connection: asyncpg.Connection
) -> None:
    async with (
        v1_client(port, token("ann")) as ann,
        v1_client(port, token("ann")) as again,
        v1_client(port, token("ben")) as ben,
        v1_client(port, token("eve", role="admin")) as admin,
    ):
        answers = [await one.subscribe("orders") for one in (ann, again, ben, admin)]
        subs = [answer["sub"] for answer in answers]
        assert subs[0] == subs[1]
        assert len(set(subs)) == 3
        assert [answer.get("restricted", False) for answer in answers] == [True, True, True, False]

        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
        frames = [await one.receive() for one in (ann, again, ben)]
        assert [frame["key"] for frame in frames] == [[1], [1], [2]]
        assert [frame["last"] for frame in frames] == [True] * 3
        assert [frame.get("last", False) for frame in await admin.frames(2)] == [False, True]


async def test_a_row_is_inserted_for_its_new_owner_without_what_it_was_before(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10)")
    async with v1_client(port, token("ann")) as ann, v1_client(port, token("ben")) as ben:
        for one in (ann, ben):
            await one.subscribe("orders")
        await connection.execute("UPDATE orders SET customer_id = 'ben', total = 5")

        left, inserted = await ann.receive(), await ben.receive()
        assert (left["op"], left["key"]) == ("leave", [1])
        assert "row" not in left
        assert (inserted["op"], inserted["row"]) == ("insert", {"id": 1, "total": 5})
        assert "old" not in inserted


async def test_a_subscription_with_other_rules_gets_a_new_number_and_a_reset_and_no_other_does(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, token("ann", totals=[7])) as ann:
        news = await ann.subscribe("news")
        orders = await ann.subscribe("orders")
        await connection.execute("""SELECT brain.restrict('orders', '{"total": "totals"}')""")
        frames = await ann.frames(2)
        while frames[-1].get("op") != "reset" or "replaces" not in frames[-2]:
            frames.append(await ann.receive())
        subscribed, reset = [f for f in frames if f.get("sub") not in (orders["sub"], news["sub"])]
        assert (subscribed["type"], subscribed["replaces"]) == ("subscribed", orders["sub"])
        assert reset["sub"] == subscribed["sub"]
        assert news["sub"] not in [frame["sub"] for frame in frames]

        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 7)")
        row = await ann.receive()
        assert (row["sub"], row["key"]) == (subscribed["sub"], [2])
        await connection.execute(NEWS)
        assert (await ann.receive())["sub"] == news["sub"]


async def test_a_subscription_ends_with_the_right_to_it_and_the_others_go_on(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, token("ann", channels=["news", "orders"])) as ann:
        news, orders = await ann.subscribe("news"), await ann.subscribe("orders")
        id = await ann.send("auth", token=token("ann", channels=["news"]))
        ended, authenticated = await ann.frames(2)
        assert (ended["type"], ended["code"]) == ("unsubscribed", "not_allowed")
        assert ended["sub"] == orders["sub"]
        assert authenticated == {"type": "authenticated", "id": id, "user": "ann"}
        assert error_code(await ann.ask("subscribe", channel="orders")) == "not_allowed"

        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10)")
        await connection.execute(NEWS)
        assert (await ann.receive())["sub"] == news["sub"]


async def test_a_client_may_come_without_a_token_and_authenticate_later(port: int) -> None:
    async with v1_client(port) as client:
        assert client.hello["user"] is None
        assert error_code(await client.ask("subscribe", channel="orders")) == "not_allowed"
        assert error_code(await client.ask("auth", token="invalid")) == "invalid_token"
        answer = await client.ask("auth", token=token("ann"))
        assert (answer["type"], answer["user"]) == ("authenticated", "ann")
        assert error_code(await client.ask("auth", token=token("ben"))) == "wrong_user"
        await client.subscribe("orders")


async def test_a_message_for_one_user_reaches_that_user_alone_and_says_that_it_is_private(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, token("ann")) as ann, v1_client(port, token("ben")) as ben:
        for one in (ann, ben):
            await one.subscribe("news")
        async with connection.transaction():
            await connection.execute(NEWS)
            await connection.execute("SELECT brain.publish('news', 'note', '2', 'ann')")
            await connection.execute("SELECT brain.publish('news', 'note', '3', 'ann')")
        await connection.execute(NEWS)

        found = [(f["data"], f.get("private", False), "last" in f) for f in await ann.frames(4)]
        assert found == [(1, False, True), (2, True, False), (3, True, True), (1, False, True)]
        assert [frame["data"] for frame in await ben.frames(2)] == [1, 1]


async def test_a_client_publishes_where_its_token_allows_it(port: int) -> None:
    claims: dict[str, Any] = {"publish": ["news"]}
    async with v1_client(port, token("ann", **claims)) as ann, v1_client(port, token("ben")) as ben:
        await ben.subscribe("news")
        note = {"message_type": "note", "data": {"a": [1]}}
        for to in ({}, {"to": "ben"}, {"to": "eve"}, {}):
            answer = await ann.ask("publish", channel="news", **note, **to)
            assert answer["type"] == "published"
        refused = await ann.ask("publish", channel="orders", **note)
        assert error_code(refused) == "not_allowed"

        frames = await ben.frames(3)
        assert [frame["data"] for frame in frames] == [{"a": [1]}] * 3
        assert [frame.get("private", False) for frame in frames] == [False, True, False]
        assert frames[2]["txid"] == answer["txid"]


async def test_a_presence_that_was_set_is_confirmed(port: int) -> None:
    async with v1_client(port, token("ann")) as ann:
        answer = await ann.ask("presence", status="away")

        assert answer == {"type": "presence", "status": "away"}


async def test_a_client_has_a_bounded_number_of_subscriptions(port: int) -> None:
    async with v1_client(port, token("ann")) as ann:
        subs = [(await ann.subscribe("news", key=[n]))["sub"] for n in range(3)]
        refused = await ann.ask("subscribe", channel="orders")
        assert error_code(refused) == "too_many_subscriptions"
        # One that there is already takes no other place.
        assert (await ann.subscribe("news", key=[0]))["sub"] == subs[0]
        await ann.ask("unsubscribe", sub=subs[1])
        await ann.subscribe("orders")


async def test_a_client_whose_tokens_are_revoked_is_closed(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, token("ann", iat=int(time.time()) - 60)) as ann:
        await ann.subscribe("orders")
        await connection.execute("SELECT brain.revoke('ann')")

        assert await close_code(ann) == 4503


async def test_a_subscribe_asks_for_the_rights_of_its_own_channel_alone(
    port: int, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    read_access = Authority.read_access

    async def recorded(self: Authority, identity: Identity, names: Iterable[str]) -> ReadAccess:
        asked.append(sorted(names))
        return await read_access(self, identity, names)

    async with v1_client(port, token("ann")) as ann:
        monkeypatch.setattr(Authority, "read_access", recorded)
        news = await ann.subscribe("news")
        orders = await ann.subscribe("orders")
        await ann.subscribe("orders", key=[1])
        assert asked == [["news"], ["orders"], ["orders", "orders:1"]]

        # What was answered before holds, rules of rows included.
        await connection.execute("INSERT INTO orders VALUES (2, 'ben', 10), (3, 'ann', 10)")
        await connection.execute(NEWS)
        frames = await ann.frames(2)
        assert [frame["sub"] for frame in frames] == [orders["sub"], news["sub"]]
        assert frames[0]["key"] == [3]


async def test_a_subscribe_finds_that_the_rights_of_its_channel_have_changed(
    port: int, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with v1_client(port, token("ann", totals=[7])) as ann:
        news, orders = await ann.subscribe("news"), await ann.subscribe("orders")
        monkeypatch.setattr(SessionRegistry, "reauthorize", lambda self, channels=None: None)
        await connection.execute("""SELECT brain.restrict('orders', '{"total": "totals"}')""")
        id = await ann.send("subscribe", channel="orders", key=[1])
        frames = [await ann.receive()]
        while frames[-1].get("id") != id:
            frames.append(await ann.receive())

    replaced = next(frame for frame in frames if "replaces" in frame)
    assert replaced["replaces"] == orders["sub"]
    assert all(frame["sub"] != news["sub"] for frame in frames)
