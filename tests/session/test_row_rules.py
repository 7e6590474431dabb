"""Clients of a table with row rules: live, resumed, by snapshot and by HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import asyncpg
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from brain.app import build_app
from brain.auth.identity import Identity
from brain.auth.policy import Authority
from brain.message.matching import ReadAccess
from brain.system import installed_systems
from tests.session.test_commands import token, with_secret
from tests.transport.served import served

PATIENCE_SECONDS = 20.0
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, customer_id text, total int);
    SELECT brain.watch('orders', 'orders', '{id,total}', rules => '{"customer_id": "sub"}',
                       exempt => '{"role": "admin"}');
"""


@pytest.fixture
async def port(database: str, connection: asyncpg.Connection) -> AsyncIterator[int]:
    await connection.execute(ORDERS)
    channels = installed_systems()["channels"]
    async with served(build_app(database, with_secret(), [channels])) as (port, _):
        yield port


@asynccontextmanager
async def client(port: int, user: str, **query: Any) -> AsyncIterator[ClientConnection]:
    """Connect a user whose claims are `claims`, and read the greeting."""
    claims = query.pop("claims", {})
    query = {"channel": "orders", "token": token(user, **claims), "cursor": ""} | query
    async with connect(f"ws://127.0.0.1:{port}/ws?{urlencode(query)}", proxy=None) as websocket:
        assert (await received(websocket))["type"] == "connected"
        yield websocket


async def received(websocket: ClientConnection) -> Any:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (message := json.loads(await websocket.recv()))["type"] == "heartbeat":
            pass
    return message


async def messages(websocket: ClientConnection, count: int) -> list[tuple[str, Any]]:
    found = [await received(websocket) for _ in range(count)]
    return [(message["type"], message["data"]) for message in found]


def left(id: int) -> tuple[str, Any]:
    return "left", {"channel": "orders", "key": [id]}


async def test_each_user_gets_its_rows_alone(port: int, connection: asyncpg.Connection) -> None:
    async with (
        client(port, "ann") as ann,
        client(port, "ben") as ben,
        client(port, "eve", claims={"role": "admin"}) as admin,
    ):
        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
        await connection.execute("UPDATE orders SET total = total + 1")
        await connection.execute("UPDATE orders SET customer_id = 'ben', total = 5 WHERE id = 1")
        await connection.execute("DELETE FROM orders")
        await connection.execute(
            "SELECT brain.publish('orders', 'end', '{}', u) FROM unnest('{ann,ben,eve}'::text[]) u"
        )

        assert await messages(ann, 4) == [
            ("orders_inserted", {"id": 1, "total": 10}),
            ("orders_updated", {"id": 1, "total": 11}),
            left(1),
            ("end", {}),
        ]
        assert await messages(ben, 6) == [
            ("orders_inserted", {"id": 2, "total": 20}),
            ("orders_updated", {"id": 2, "total": 21}),
            ("orders_inserted", {"id": 1, "total": 5}),
            ("orders_deleted", {"id": 2, "total": 21}),
            ("orders_deleted", {"id": 1, "total": 5}),
            ("end", {}),
        ]
        assert [type for type, _ in await messages(admin, 8)] == [
            *["orders_inserted"] * 2,
            *["orders_updated"] * 3,
            *["orders_deleted"] * 2,
            "end",
        ]


async def test_a_snapshot_and_what_follows_have_its_rows_alone(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
    cases: list[tuple[str, dict[str, Any], list[dict[str, int]]]] = [
        ("ann", {}, [{"id": 1, "total": 10}]),
        ("eve", {}, []),
        ("eve", {"role": "admin"}, [{"id": 1, "total": 10}, {"id": 2, "total": 20}]),
    ]
    for user, claims, rows in cases:
        async with client(port, user, snapshot="", claims=claims) as websocket:
            ((type, data),) = await messages(websocket, 1)
            assert (type, data["rows"]) == ("snapshot", rows)
        url = f"http://127.0.0.1:{port}/api/brain/snapshot/orders"
        async with AsyncClient() as http:
            bearer = {"authorization": f"Bearer {token(user, **claims)}"}
            response = await http.get(url, headers=bearer)
            assert response.json()["rows"] == rows


async def test_a_client_that_resumes_gets_its_rows_alone(
    port: int, connection: asyncpg.Connection
) -> None:
    async with client(port, "ann") as ann:
        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10)")
        cursor = (await received(ann))["cursor"]
    await connection.execute("INSERT INTO orders VALUES (2, 'ben', 20), (3, 'ann', 30)")

    async with client(port, "ann", cursor=cursor) as ann:
        assert await messages(ann, 1) == [("orders_inserted", {"id": 3, "total": 30})]


async def test_a_client_without_claims_gets_nothing_and_no_message_for_all(
    port: int, connection: asyncpg.Connection
) -> None:
    async with client(port, "eve") as eve, client(port, "a", claims={"role": "admin"}) as admin:
        await connection.execute("INSERT INTO orders VALUES (1, NULL, 10), (2, 'ben', 20)")
        await connection.execute("""SELECT brain.publish('orders', 'sale', '{"a": 1}')""")
        await connection.execute("SELECT brain.publish('orders', 'end', '{}', 'eve')")
        await connection.execute("TRUNCATE orders")

        assert await messages(eve, 2) == [("end", {}), ("orders_truncated", {})]
        assert [type for type, _ in await messages(admin, 4)] == [
            *["orders_inserted"] * 2,
            "sale",
            "orders_truncated",
        ]


async def test_an_open_client_follows_a_rule_that_changes(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
    async with client(port, "ann", snapshot="", claims={"totals": [20]}) as ann:
        assert [one["id"] for _, data in await messages(ann, 1) for one in data["rows"]] == [1]
        for rules, rows in (
            ('{"total": "totals"}', [2]),
            ("{}", [1, 2]),
            ('{"customer_id": "sub"}', [1]),
            ('{"customer_id": "sub", "total": "totals"}', []),
        ):
            await connection.execute("SELECT brain.restrict('orders', $1::text::jsonb)", rules)
            found: list[Any] = [None]
            async with asyncio.timeout(PATIENCE_SECONDS):
                while found != rows:
                    message = await received(ann)
                    assert message["type"] in ("reset", "snapshot")
                    if message["type"] == "snapshot":
                        found = sorted(one["id"] for one in message["data"]["rows"])
                        assert found in (rows, []), (rules, found)


async def test_a_cursor_from_before_a_rule_gets_a_reset(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("SELECT brain.restrict('orders', '{}')")
    async with client(port, "ann") as ann:
        await connection.execute("INSERT INTO orders VALUES (1, 'ben', 10)")
        cursor = (await received(ann))["cursor"]
    await connection.execute("INSERT INTO orders VALUES (2, 'ben', 10)")
    await connection.execute("""SELECT brain.restrict('orders', '{"customer_id": "sub"}')""")
    await connection.execute("INSERT INTO orders VALUES (3, 'ann', 10), (4, 'ben', 10)")

    async with client(port, "ann", cursor=cursor) as ann:
        found = await messages(ann, 2)
    assert [type for type, _ in found] == ["reset", "orders_inserted"]
    assert found[1][1]["id"] == 3


async def test_a_filter_and_a_row_hold_within_the_rules(
    port: int, connection: asyncpg.Connection
) -> None:
    async with (
        client(port, "ann", where='{"total": 10}') as filtered,
        client(port, "ann", channel="orders:1") as one,
    ):
        await connection.execute(
            "INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 10), (3, 'ann', 30)"
        )
        await connection.execute("UPDATE orders SET customer_id = 'ben' WHERE id = 1")
        await connection.execute("UPDATE orders SET total = 11 WHERE id = 1")
        await connection.execute("UPDATE orders SET customer_id = 'ann' WHERE id = 1")
        await connection.execute("UPDATE orders SET total = 10 WHERE id = 1")

        assert await messages(filtered, 3) == [
            ("orders_inserted", {"id": 1, "total": 10}),
            left(1),
            ("orders_updated", {"id": 1, "total": 10}),
        ]
        assert await messages(one, 4) == [
            ("orders_inserted", {"id": 1, "total": 10}),
            left(1),
            ("orders_inserted", {"id": 1, "total": 11}),
            ("orders_updated", {"id": 1, "total": 10}),
        ]


async def test_the_right_to_read_one_row_holds_within_the_rules(
    port: int, connection: asyncpg.Connection
) -> None:
    async with client(port, "ann", channel="orders:1", claims={"channels": ["orders:1"]}) as ann:
        await connection.execute("INSERT INTO orders VALUES (1, 'ben', 10), (2, 'ann', 10)")
        await connection.execute("UPDATE orders SET customer_id = 'ann' WHERE id = 1")
        await connection.execute("UPDATE orders SET customer_id = 'ben' WHERE id = 1")

        assert await messages(ann, 2) == [("orders_inserted", {"id": 1, "total": 10}), left(1)]


FEED = """
    SELECT brain.define_feed('my-orders', $$
        SELECT jsonb_build_object('mine', coalesce(jsonb_agg(id ORDER BY id), '[]'))
          FROM orders WHERE customer_id = $1
    $$, '{orders}', takes_argument => true%s)
"""
BY_CLAIM = FEED % ", argument_claim => 'sub'"


async def test_a_feed_of_a_restricted_channel_needs_a_claim_or_a_word(
    connection: asyncpg.Connection,
) -> None:
    await connection.execute(ORDERS)
    with pytest.raises(asyncpg.InvalidParameterValueError, match="have row rules"):
        await connection.execute(FEED % "")
    await connection.execute(FEED % ", row_security => 'ignored'")
    await connection.execute(BY_CLAIM)
    await connection.execute("SELECT brain.restrict('orders', '{}')")
    await connection.execute(FEED % "")

    with pytest.raises(asyncpg.RaiseError, match="the state of the feeds my-orders"):
        await connection.execute("""SELECT brain.restrict('orders', '{"customer_id": "sub"}')""")
    with pytest.raises(asyncpg.InvalidParameterValueError, match="no argument that could come"):
        await connection.execute(
            "SELECT brain.define_feed('x', 'SELECT to_jsonb(1)', '{a}', argument_claim => 'sub')"
        )


async def test_a_feed_takes_its_argument_from_the_token_alone(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10), (2, 'ben', 20)")
    await connection.execute(BY_CLAIM)
    follow = f"ws://127.0.0.1:{port}/ws/my-orders"
    poll = f"http://127.0.0.1:{port}/api/my-orders"
    async with (
        connect(f"{follow}?token={token('ann')}", proxy=None) as ann,
        connect(f"{follow}?token={token('ben')}", proxy=None) as ben,
        AsyncClient() as http,
    ):
        assert (await received(ann))["data"] == {"mine": [1]}
        assert (await received(ben))["data"] == {"mine": [2]}
        await connection.execute("INSERT INTO orders VALUES (3, 'ann', 30)")
        assert (await received(ann))["data"] == {"mine": [1, 3]}

        bearer = {"authorization": f"Bearer {token('ben')}"}
        assert (await http.get(poll, headers=bearer)).json() == {"mine": [2]}
        assert (await http.get(f"{poll}/ann", headers=bearer)).status_code == 404
        for url, status in ((f"{follow}/ann", 404), (follow, 403)):
            user = token("ben") if status == 404 else ""
            with pytest.raises(InvalidStatus) as refused:
                await connect(f"{url}?token={user}", proxy=None)
            assert refused.value.response.status_code == status


async def test_a_token_without_the_claim_of_a_feed_is_refused(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(BY_CLAIM.replace("'sub'", "'team'"))
    poll = f"http://127.0.0.1:{port}/api/my-orders"
    claims: list[tuple[dict[str, Any], int]] = [
        ({"team": "red"}, 200),
        ({"team": 7}, 200),
        ({"team": ["red"]}, 403),
        ({"team": True}, 403),
        ({"team": "a\0b"}, 403),
        ({}, 403),
    ]
    async with AsyncClient() as http:
        for extra, status in claims:
            bearer = {"authorization": f"Bearer {token('ann', **extra)}"}
            response = await http.get(poll, headers=bearer)
            assert response.status_code == status, (extra, response.text)


async def test_open_clients_follow_an_access_function_that_changes(
    port: int, connection: asyncpg.Connection
) -> None:
    function = """
        CREATE OR REPLACE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean
        LANGUAGE sql AS $$ SELECT channel = ANY ('{%s}') $$
    """
    await connection.execute(BY_CLAIM)
    follow = f"ws://127.0.0.1:{port}/ws/my-orders?token={token('ann')}"
    async with connect(follow, proxy=None) as feed, client(port, "ann") as ann:
        await received(feed)
        await connection.execute(function % "other")
        assert (await received(ann))["type"] == "reset"
        await connection.execute("INSERT INTO orders VALUES (1, 'ann', 10)")
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                await received(feed)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4504
        await connection.execute(function % "orders")
        assert (await received(ann))["type"] == "reset"
        await connection.execute("INSERT INTO orders VALUES (2, 'ann', 10)")
        assert (await messages(ann, 1))[0][1]["id"] == 2


async def test_the_combinations_of_values_of_a_client_are_bounded(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """SELECT brain.restrict('orders', '{"customer_id": "customers", "total": "totals"}')"""
    )
    many: dict[str, Any] = {"customers": [f"c{n}" for n in range(40)], "totals": list(range(25))}
    channels = [("channel", f"orders:{n}") for n in range(11)]
    headers = {"authorization": f"Bearer {token('ann', **many)}"}
    url = f"ws://127.0.0.1:{port}/ws?{urlencode(channels)}"
    with pytest.raises(InvalidStatus) as refused:
        await connect(url, proxy=None, additional_headers=headers)
    assert refused.value.response.status_code == 400

    url = f"ws://127.0.0.1:{port}/ws/channel/orders"
    async with connect(url, proxy=None, additional_headers=headers) as websocket:
        await websocket.recv()
        for number in range(10):
            row = {"type": "subscribe", "channel": f"orders:{number}"}
            await websocket.send(json.dumps(row))
            answer = json.loads(await websocket.recv())
            assert answer["type"] == ("subscribed" if number < 8 else "error")
        await connection.execute("INSERT INTO orders VALUES (20, 'c39', 24), (21, 'c40', 24)")
        assert json.loads(await websocket.recv())["data"]["id"] == 20

    above = {"customers": [f"c{n}" for n in range(41)], "totals": list(range(25))}
    async with client(port, "ann", snapshot="", claims=above) as nobody:
        ((_, data),) = await messages(nobody, 1)
        assert data["rows"] == []


BY_TWO_CLAIMS = """
    SELECT brain.restrict('orders', '{"customer_id": "customers", "total": "totals"}')
"""
FEW: dict[str, Any] = {"customers": ["c1"], "totals": [10]}
MANY: dict[str, Any] = {"customers": [f"c{n}" for n in range(40)], "totals": list(range(25))}
"""A thousand combinations."""


async def answer(websocket: ClientConnection, **frame: Any) -> Any:
    await websocket.send(json.dumps(frame))
    return await received(websocket)


async def test_a_token_that_allows_too_many_combinations_is_refused_and_changes_nothing(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(BY_TWO_CLAIMS)
    url = f"ws://127.0.0.1:{port}/ws/channel/orders?token={token('ann', **FEW)}"
    async with connect(url, proxy=None) as ann:
        await received(ann)
        for number in range(10):
            row = {"type": "subscribe", "channel": f"orders:{number}"}
            reply = await answer(ann, **row)
            while reply["type"] == "reset":  # the new rules have reached this node just now
                reply = await received(ann)
            assert reply["type"] == "subscribed"

        refusal = await answer(ann, type="auth", token=token("ann", **MANY))
        assert (refusal["type"], refusal["error"]) == ("error", "Too many subscriptions")
        await connection.execute("INSERT INTO orders VALUES (20, 'c2', 10), (21, 'c1', 10)")
        assert (await received(ann))["data"]["id"] == 21
        same = await answer(ann, type="auth", token=token("ann", seconds=100, **FEW))
        assert same["type"] == "authenticated"


async def test_a_client_for_which_new_rules_have_too_many_combinations_is_closed(
    port: int, connection: asyncpg.Connection
) -> None:
    rows = "&".join(f"channel=orders:{number}" for number in range(11))
    url = f"ws://127.0.0.1:{port}/ws?cursor=&{rows}&token={token('ann', **MANY)}"
    async with connect(url, proxy=None) as ann, client(port, "ann", claims=MANY) as other:
        await received(ann)
        await connection.execute(BY_TWO_CLAIMS)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                assert (await received(ann))["type"] == "reset"
        assert (await received(other))["type"] == "reset"
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4504
    assert closed.value.rcvd.reason == "too many subscriptions for the rows that the token allows"


MAY_READ = """
    CREATE OR REPLACE FUNCTION brain.may_read(claims jsonb, channel text) RETURNS boolean
    LANGUAGE sql AS $$ SELECT channel = ANY ('{%s}') $$
"""


@pytest.mark.parametrize("frame", ["subscribe", "auth"])
async def test_a_client_that_sends_a_frame_learns_that_it_may_read_less_as_any_other_does(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch, frame: str
) -> None:
    monkeypatch.setattr("brain.auth.access_function.KEEP_SECONDS", 0.0)
    await connection.execute(MAY_READ % "orders,news")
    app = build_app(database, with_secret(), [installed_systems()["channels"]])
    frames = {
        "subscribe": {"type": "subscribe", "channel": "news"},
        "auth": {"type": "auth", "token": token("ann", seconds=100)},
    }
    async with served(app) as (port, _):
        url = f"ws://127.0.0.1:{port}/ws/channel/orders?token={token('ann')}"
        async with connect(url, proxy=None) as ann:
            await received(ann)
            assert (await answer(ann, **frames[frame]))["type"] != "error"
            await connection.execute(MAY_READ % "news")
            with pytest.raises(ConnectionClosed) as closed:
                await answer(ann, **frames[frame])
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4009


@pytest.mark.parametrize(("path", "code"), [("/ws/channel/orders", 4009), ("/ws/my-orders", 4504)])
async def test_a_client_that_is_being_admitted_follows_an_access_function_that_changes(
    database: str,
    connection: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    code: int,
) -> None:
    read_access = Authority.read_access

    async def change_after(
        authority: Authority, identity: Identity, names: Iterable[str]
    ) -> ReadAccess:
        access = await read_access(authority, identity, names)
        monkeypatch.setattr(Authority, "read_access", read_access)
        await connection.execute(MAY_READ % "news")
        assert authority._access_function is not None
        await authority._access_function.look()
        return access

    await connection.execute(ORDERS + MAY_READ % "orders,my-orders")
    await connection.execute(BY_CLAIM)
    app = build_app(database, with_secret(), [installed_systems()["channels"]])
    async with served(app) as (port, _):
        monkeypatch.setattr(Authority, "read_access", change_after)
        url = f"ws://127.0.0.1:{port}{path}?token={token()}"
        async with connect(url, proxy=None) as ann:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    await received(ann)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == code
