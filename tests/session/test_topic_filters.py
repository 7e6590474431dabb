"""Filters of brain.v1, from the frame of a client to its rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest

from brain.app import build_app
from brain.message.commands import Refuse
from brain.message.condition_parsing import MOST_VALUES
from brain.message.matching import Topic
from brain.session.connection_limiter import MOST_EVALUATED_TOGETHER
from brain.session.granting import MOST_EVALUATED, bound_topic
from tests.session.event_stream_client import stream
from tests.session.test_commands import token, with_secret
from tests.session.v1_client import V1Client, v1_client
from tests.transport.served import served

ORDERS = """
    CREATE TYPE mood AS ENUM ('sad', 'so so', 'happy');
    CREATE TABLE orders (id int PRIMARY KEY, status text, total numeric, mood mood, at timestamptz,
                         details jsonb, span interval, secret text, owner text);
    SELECT brain.watch('orders', 'orders', '{id,status,total,mood,at,details,span}',
                       column_bytes => 8192);
"""
TOKEN = token("ann", seconds=3600)


@pytest.fixture
async def port(
    database: str, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[int]:
    monkeypatch.setattr("brain.database.filter_binder.FilterBinder.poll_seconds", 0.05)
    await connection.execute(ORDERS)
    settings = with_secret(messages_per_second=1000)
    async with served(build_app(database, settings)) as (port, _):
        yield port


async def insert(connection: asyncpg.Connection, id: int, **values: Any) -> None:
    names = ", ".join(["id", *values])
    texts = ", ".join([str(id), *(f"'{v}'" for v in values.values())])
    await connection.execute(f"INSERT INTO orders ({names}) VALUES ({texts})")


def shown(frame: dict[str, Any]) -> tuple[str, int]:
    return frame["op"], frame["key"][0]


async def test_rows_enter_a_range_change_in_it_and_leave_it(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, TOKEN) as client:
        await client.subscribe("orders", where={"total": {"gte": 10, "lt": 20}})
        for id, total in enumerate((9.99, 10, 19.99, 20, "NaN", "Infinity"), 1):
            await insert(connection, id, total=total)
        await connection.execute("INSERT INTO orders (id) VALUES (7)")
        for total, id in ((15, 1), (16, 1), (20, 1), (None, 2), (12, 7), (25, 4), (11, 5)):
            await connection.execute("UPDATE orders SET total = $1 WHERE id = $2", total, id)
        for id in (1, 5, 7, 3):
            await connection.execute("DELETE FROM orders WHERE id = $1", id)
        frames = await client.until_pong()
        while shown(frames[-1]) != ("delete", 3):
            frames.append(await client.receive())

    assert [shown(frame) for frame in frames] == [
        ("insert", 2),
        ("insert", 3),
        ("insert", 1),
        ("update", 1),
        ("leave", 1),
        ("leave", 2),
        ("insert", 7),
        ("insert", 5),
        ("delete", 5),
        ("delete", 7),
        ("delete", 3),
    ]
    entered, changed = frames[2:4]
    assert "old" not in entered
    assert changed["old"]["total"] == 15
    assert all(frame["last"] for frame in frames[:8])


ROWS_OF_FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"status": {"in": ["new", "paid"]}}, [1, 2]),
    ({"status": {"in": []}}, []),
    ({"status": {"is": None}}, [4]),
    ({"status": {"neq": "new"}}, [2, 3]),
    ({"status": {"gt": "new"}}, [2, 3]),
    ({"mood": {"gte": "so so"}}, [2, 3]),
    ({"at": {"lt": "2026-01-01T01:00:00+01:00"}}, [1]),
    ({"or": [{"status": "new"}, {"total": {"gt": 25}}]}, [1, 3]),
    ({"or": [{"status": "new"}, {"mood": {"is": None}}]}, [1, 4]),
    ({"and": [{"status": {"neq": "new"}}, {"or": [{"id": 2}, {"id": 4}]}]}, [2]),
    ({"id": {"in": [1, 2, 3]}, "total": {"gte": 20}, "mood": {"neq": "happy"}}, [2]),
    ({"span": "1 day"}, [1]),
    ({"details": {"is": None}}, [2, 3, 4]),
    ({}, [1, 2, 3, 4]),
]


async def write_four_rows(connection: asyncpg.Connection) -> None:
    first = {"status": "new", "total": 10, "mood": "sad", "at": "2025-12-31T23:59:59Z"}
    await insert(connection, 1, **first, span="1 day", details="{}")
    await insert(connection, 2, status="paid", total=20, mood="so so", at="2026-01-01T00:00:00Z")
    third = {"status": "sent", "total": 30, "mood": "happy", "at": "infinity"}
    await insert(connection, 3, **third, span="24 hours")
    await insert(connection, 4)


async def test_clients_get_the_rows_of_their_filters_live_and_in_snapshots(
    port: int, connection: asyncpg.Connection
) -> None:
    async with AsyncExitStack() as stack:
        clients = []
        for where, _ in ROWS_OF_FILTERS:
            client = await stack.enter_async_context(v1_client(port, TOKEN))
            await client.subscribe("end")
            await client.subscribe("orders", where=where)
            clients.append(client)
        await write_four_rows(connection)
        await connection.execute("SELECT brain.publish('end', 'end', '1')")
        for client, (where, expected) in zip(clients, ROWS_OF_FILTERS, strict=True):
            live = [await client.receive()]
            while live[-1]["channel"] != "end":
                live.append(await client.receive())
            assert [frame["key"][0] for frame in live[:-1]] == expected, where

    for where, expected in ROWS_OF_FILTERS:
        async with v1_client(port, TOKEN) as client:
            await client.subscribe("orders", where=where, snapshot=True)
            frames = [await client.receive()]
            while frames[-1]["op"] != "snapshot-end":
                frames.append(await client.receive())
            rows = [row["key"][0] for frame in frames[:-1] for row in frame["rows"]]
            assert sorted(rows) == expected, where


async def test_filters_that_mean_the_same_are_one_subscription_and_the_answer_says_what_it_is(
    port: int,
) -> None:
    async with v1_client(port, TOKEN) as client:
        answers = [
            await client.subscribe("orders", where=where)
            for where in (
                {"total": {"gte": 10, "lt": 2e1}, "status": "new"},
                {"and": [{"status": {"in": ["new", "new"]}}, {"total": {"lt": 20, "gte": 10.0}}]},
                {"or": [{"and": [{"status": {"eq": "new"}}, {"total": {"gte": "10", "lt": 20}}]}]},
            )
        ]
        moods = [
            await client.subscribe("orders", where={"mood": mood})
            for mood in ({"gt": "sad"}, {"in": ["happy", "so so"]})
        ]

    assert len({answer["sub"] for answer in answers}) == 1
    assert {str(answer["where"]) for answer in answers} == {
        "{'and': [{'status': {'eq': 'new'}}, {'total': {'gte': 10}}, {'total': {'lt': 20}}]}"
    }
    assert moods[0]["sub"] == moods[1]["sub"]
    assert moods[0]["where"] == {"mood": {"in": ["happy", "so so"]}}


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"colour": 1}, "orders has no column colour; it has id, status, total"),
    ({"secret": "x"}, "orders has no column secret"),
    ({"owner": {"is": None}}, "orders has no column owner"),
    ({"total": {"gt": "much"}}, '"much" is no value of total, which is of type numeric'),
    ({"at": {"gt": "yesterday"}}, "is written like 2026-01-31T12:00:00Z"),
    ({"mood": {"lt": "bored"}}, "sad, so so, happy"),
    ({"details": {"eq": "x"}}, "details: values of type jsonb cannot be compared"),
    ({"span": {"lt": "1 day"}}, "span: values of type interval have no exact order"),
    ({"status": {"like": "n%"}}, "there is no comparison like; there are eq, neq, gt"),
    ({"status": None}, "nothing equals null"),
    ({"id": {"in": list(range(MOST_VALUES + 1))}}, f"may have {MOST_VALUES} values"),
    ({"or": {"id": 1}}, "there is no comparison id"),
]


async def test_a_filter_that_cannot_be_evaluated_is_refused_by_name(port: int) -> None:
    for where, reason in REFUSED:
        async with v1_client(port, TOKEN) as client:
            refused = await client.ask("subscribe", channel="orders", where=where)

        assert (refused["type"], refused["code"]) == ("error", "invalid_filter"), where
        assert reason in refused["message"]
        assert refused["advice"]


async def test_who_may_not_read_a_channel_does_not_learn_its_columns(port: int) -> None:
    async with v1_client(port, token("ben", channels=["news"])) as client:
        refused = await client.ask("subscribe", channel="orders", where={"colour": 1})

    assert refused["code"] == "not_allowed"
    assert "column" not in refused["message"]


async def test_a_client_may_have_a_bounded_number_of_values_evaluated(port: int) -> None:
    def ranges(start: int, count: int) -> dict[str, Any]:
        return {"or": [{"total": {"gt": start + n}} for n in range(count)]}

    async with v1_client(port, TOKEN) as client:
        for number in range(MOST_EVALUATED // 90):
            await client.subscribe("orders", where=ranges(1000 * number, 90))
        refused = await client.ask("subscribe", channel="orders", where=ranges(-1000, 90))
        # Those that are looked up cost nothing like it.
        await client.subscribe("orders", where={"id": {"in": list(range(100))}})

    assert refused["code"] == "too_many_subscriptions"
    assert f"{MOST_EVALUATED} values" in refused["message"]


async def test_a_user_may_have_a_bounded_number_of_values_evaluated_on_all_connections(
    port: int,
) -> None:
    def ranges(start: int, count: int) -> dict[str, Any]:
        return {"or": [{"total": {"gt": start + n}} for n in range(count)]}

    async with v1_client(port, TOKEN) as first, v1_client(port, TOKEN) as second:
        for number in range(MOST_EVALUATED // 90):
            answer = await first.subscribe("orders", where=ranges(1000 * number, 90))
            await second.subscribe("orders", where=ranges(1000 * number, 90))
        async with v1_client(port, TOKEN) as third:
            where = ranges(-1000, 30)
            refused = await third.ask("subscribe", channel="orders", where=where)
            assert refused["code"] == "too_many_subscriptions"
            assert f"{MOST_EVALUATED_TOGETHER} values" in refused["message"]
            headers = {"Authorization": f"Bearer {TOKEN}"}
            async with stream(port, headers=headers, channel="orders", where=where) as one:
                assert one.status == 429
                assert f"{MOST_EVALUATED_TOGETHER} values" in await one.body()
            async with v1_client(port, token("ben", seconds=3600)) as other:
                await other.subscribe("orders", where=where)

            await first.ask("unsubscribe", sub=answer["sub"])
            await third.subscribe("orders", where=where)


async def test_messages_of_a_channel_without_a_table_are_filtered_by_equality(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, TOKEN) as client:
        refused = await client.ask("subscribe", channel="news", where={"size": {"gt": 1}})
        assert refused["code"] == "invalid_filter"
        assert "no table is watched on news" in refused["message"]
        await client.subscribe(
            "news", where={"room": {"in": ["a", 1]}, "kind": {"neq": "x"}, "to": {"is": None}}
        )
        for data in (
            '{"room": "a", "kind": "y", "to": null}',
            '{"room": 1.0, "kind": 2, "to": null}',
            '{"room": "1", "kind": "y", "to": null}',
            '{"room": "a", "kind": "x", "to": null}',
            '{"room": "a", "to": null}',
            '{"room": "a", "kind": null, "to": null}',
            '{"room": "a", "kind": "y"}',
            '["a"]',
            '{"room": "a", "kind": "end", "to": null}',
        ):
            await connection.execute("SELECT brain.publish('news', 'note', $1)", data)
        frames = await client.frames(3)

    assert [frame["data"]["kind"] for frame in frames] == ["y", 2, "end"]


async def test_messages_on_the_channel_of_a_table_are_filtered_by_the_types_of_its_columns(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, TOKEN) as client:
        await client.subscribe("orders", where={"total": {"gt": 5}})
        for data in ('{"total": 5}', '{"total": "x"}', "{}", "7", '{"total": 6}'):
            await connection.execute("SELECT brain.publish('orders', 'note', $1)", data)

        assert (await client.receive())["data"] == {"total": 6}


async def ended(client: V1Client, sub: int) -> str:
    """Return why a subscription ended."""
    unsubscribed, error = await client.frames(2)
    assert (unsubscribed["type"], unsubscribed["sub"]) == ("unsubscribed", sub)
    assert unsubscribed["code"] == error["code"] == "invalid_filter"
    assert unsubscribed["id"] == error["id"]
    message: str = error["message"]
    return message


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ("ALTER TABLE orders ALTER total TYPE text", "10 is no value of total"),
        ("ALTER TABLE orders DROP total", "total was dropped or renamed"),
        ("ALTER TABLE orders RENAME total TO price", "total was dropped or renamed"),
        ("SELECT brain.watch('orders', 'orders', '{id,status}')", "orders has no column total"),
        ("SELECT brain.unwatch('orders')", "gt needs the type of a column, and no table is watch"),
    ],
)
async def test_a_filter_that_can_be_evaluated_no_more_ends_its_subscription_alone(
    port: int, connection: asyncpg.Connection, change: str, reason: str
) -> None:
    async with v1_client(port, TOKEN) as client:
        ranged = await client.subscribe("orders", where={"total": {"gt": 10}})
        other = await client.subscribe("orders", where={"id": 1})
        await connection.execute(change)
        assert reason in await ended(client, ranged["sub"])

        if "unwatch" in change:
            await connection.execute("SELECT brain.publish('orders', 'x', '{\"id\": 1}')")
        else:
            await insert(connection, 1)
        frames = [await client.receive()]
        while frames[-1].get("op") not in ("insert", "message"):
            frames.append(await client.receive())
        assert frames[-1]["sub"] in {other["sub"], *(f["sub"] for f in frames if "replaces" in f)}


async def test_a_filter_that_means_something_else_gets_another_number_and_the_rows_again(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1, mood="happy")
    async with v1_client(port, TOKEN) as client, v1_client(port, TOKEN) as plain:
        first = await client.subscribe("orders", where={"mood": {"gt": "sad"}}, snapshot=True)
        await client.frames(3)
        unchanged = await client.subscribe("orders", where={"mood": {"lt": "happy"}})
        without = await plain.subscribe("orders", where={"mood": {"gt": "sad"}})
        assert without["sub"] == first["sub"]
        await connection.execute("ALTER TYPE mood ADD VALUE 'angry' AFTER 'happy'")

        again, reset, page, end, live = await client.frames(5)
        assert (again["type"], again["replaces"]) == ("subscribed", first["sub"])
        assert again["where"] == {"mood": {"in": ["angry", "happy", "so so"]}}
        assert (reset["op"], reset["sub"]) == ("reset", again["sub"])
        assert [row["key"] for row in page["rows"]] == [[1]]
        assert (end["op"], live["op"]) == ("snapshot-end", "live")
        other, other_reset = await plain.frames(2)
        assert (other["sub"], other_reset["op"]) == (again["sub"], "reset")

        await insert(connection, 2, mood="angry")
        await insert(connection, 3, mood="sad")
        frames = await client.frames(2)
        assert [(f["sub"], f["key"]) for f in frames] == [
            (again["sub"], [2]),
            (unchanged["sub"], [3]),
        ]


@pytest.mark.parametrize("wants_rows", [(True, True), (True, False), (False, True)])
async def test_filters_that_become_the_same_are_one_subscription_that_can_be_ended(
    port: int, connection: asyncpg.Connection, wants_rows: tuple[bool, bool]
) -> None:
    await insert(connection, 1, total="0.1")
    async with v1_client(port, TOKEN) as client:
        former = []
        for digit, wanted in enumerate(wants_rows, 1):
            where = {"total": {"eq": f"0.1000000000000000000{digit}"}}
            answer = await client.subscribe("orders", where=where, snapshot=wanted)
            former.append(answer["sub"])
            if wanted:
                assert [frame["op"] for frame in await client.frames(2)] == ["snapshot-end", "live"]
        await connection.execute("ALTER TABLE orders ALTER total TYPE float8")
        frames = await client.frames(7)
        again = frames[0]["sub"]
        assert [f.get("op", f.get("replaces")) for f in frames] == [
            former[0],
            "reset",
            former[1],
            "reset",
            "snapshot",
            "snapshot-end",
            "live",
        ]
        assert [f["id"] for f in frames if "id" in f] == ["request 1", "request 2"]
        assert {f["sub"] for f in frames} == {again}

        await insert(connection, 2, total="0.1")
        assert shown(await client.receive()) == ("insert", 2)
        assert await client.ask("unsubscribe", sub=again) == {"type": "unsubscribed", "sub": again}
        await insert(connection, 3, total="0.1")
        await client.subscribe("orders", where={"id": 4})
        await insert(connection, 4, total="0.1")
        assert shown(await client.receive()) == ("insert", 4)


async def test_a_table_that_is_watched_later_gives_a_filter_its_types(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, TOKEN) as client:
        text = await client.subscribe("parcels", where={"weight": "5"})
        number = await client.subscribe("parcels", where={"weight": 5})
        await connection.execute(
            "CREATE TABLE parcels (id int PRIMARY KEY, weight text);"
            "SELECT brain.watch('parcels', 'parcels', '{id,weight}')"
        )
        frames = await client.frames(4)
        again, reset = (f for f in frames if f.get("type") != "unsubscribed" and "code" not in f)
        gone = next(f for f in frames if f.get("type") == "unsubscribed")
        assert gone["sub"] == number["sub"]
        assert again["replaces"] == text["sub"]
        assert reset["sub"] == again["sub"]

        await connection.execute("INSERT INTO parcels VALUES (1, '5')")
        assert (await client.receive())["sub"] == again["sub"]


LARGE = "z" * 10_000


async def test_an_event_that_does_not_say_whether_a_row_matches_is_a_reset_of_its_subscription(
    port: int, connection: asyncpg.Connection
) -> None:
    await insert(connection, 1, status="new")
    async with v1_client(port, TOKEN) as client:
        plain = await client.subscribe("orders", where={"status": {"gt": "m"}})
        other = await client.subscribe("orders", where={"id": {"gt": 0}})
        await client.subscribe("orders", where={"status": {"lt": "o"}}, snapshot=True)
        await client.frames(3)
        await connection.execute("UPDATE orders SET status = $1", LARGE)
        await connection.execute("UPDATE orders SET status = 'old', total = 1")

        frames = [await client.receive()]
        while frames[-1].get("op") != "live":
            frames.append(await client.receive())
        reset = next(f for f in frames if f["sub"] == plain["sub"])
        assert reset["op"] == "reset"
        assert "status" in reset["reason"]
        assert [f["op"] for f in frames if f["sub"] == other["sub"]] == ["update", "update"]
        loaded = [f["op"] for f in frames if f["sub"] not in (plain["sub"], other["sub"])]
        assert loaded[0] == "reset"
        assert loaded[-2:] == ["snapshot-end", "live"]

        await insert(connection, 2, status="n")
        ops = {(f["sub"], f["op"]) for f in await client.frames(3)}
        assert {op for _, op in ops} == {"insert"}


RULES = """SELECT brain.restrict('orders', '{"owner": "sub"}')"""


async def test_row_rules_and_a_range_decide_together_which_rows_a_client_sees(
    port: int, connection: asyncpg.Connection
) -> None:
    await connection.execute(RULES)
    async with v1_client(port, token("ann")) as ann, v1_client(port, token("ben")) as ben:
        for client in (ann, ben):
            await client.subscribe("orders", where={"total": {"gt": 10}})
        await insert(connection, 1, owner="ann", total=20)
        await insert(connection, 2, owner="ann", total=5)
        for owner, total, id in (
            ("ann", 21, 1),  # ann: update
            ("ben", 22, 1),  # ann: leave, ben: insert
            ("ann", 9, 1),  # ben: leave
            ("ben", 9, 1),
            ("ben", 30, 1),  # ben: insert
            ("ann", 31, 1),  # ben: leave, ann: insert
            ("ann", 8, 1),  # ann: leave
            ("ben", 40, 2),  # ben: insert
        ):
            await connection.execute(
                "UPDATE orders SET owner = $1, total = $2 WHERE id = $3", owner, total, id
            )
        await insert(connection, 9, owner="ann", total=99)
        await insert(connection, 8, owner="ben", total=99)
        seen: list[list[tuple[str, int]]] = []
        for client, last in ((ann, 9), (ben, 8)):
            frames = [await client.receive()]
            while frames[-1]["key"] != [last]:
                frames.append(await client.receive())
            seen.append([shown(frame) for frame in frames[:-1]])
            assert all("old" not in frame for frame in frames if frame["op"] == "insert")

    assert seen == [
        [("insert", 1), ("update", 1), ("leave", 1), ("insert", 1), ("leave", 1)],
        [("insert", 1), ("leave", 1), ("insert", 1), ("leave", 1), ("insert", 2)],
    ]


async def test_a_filter_is_of_rows_that_a_client_missed_as_well(
    port: int, connection: asyncpg.Connection
) -> None:
    async with v1_client(port, TOKEN) as client:
        start = client.hello["cursor"]
        await insert(connection, 1, total=5)
        await connection.execute("UPDATE orders SET total = 15")
        await connection.execute("UPDATE orders SET total = 16")
        await connection.execute("UPDATE orders SET total = 3")
        await client.subscribe("orders", after=start, where={"total": {"gt": 10}})
        frames = [await client.receive()]
        while frames[-1]["op"] != "live":
            frames.append(await client.receive())

    assert [frame["op"] for frame in frames] == ["insert", "update", "leave", "live"]


async def test_a_filter_that_is_being_bound_while_columns_change_is_bound_again(
    port: int, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_bound, may_go_on = asyncio.Event(), asyncio.Event()

    async def late(*arguments: Any) -> Topic | Refuse:
        found = await bound_topic(*arguments)
        if not is_bound.is_set():
            is_bound.set()
            await may_go_on.wait()
        return found

    async with v1_client(port, TOKEN) as client:
        monkeypatch.setattr("brain.session.granting.bound_topic", late)
        id = await client.send("subscribe", channel="orders", where={"total": {"gt": 1}})
        await is_bound.wait()
        async with v1_client(port, TOKEN) as other:
            await other.subscribe("orders", where={"total": {"gt": 2}})
            await connection.execute("SELECT brain.watch('orders', 'orders', '{id,status}')")
            while (await other.receive())["type"] != "error":
                pass
        may_go_on.set()
        frames = [await client.receive()]
        while frames[-1].get("code") != "invalid_filter" or frames[-1]["type"] != "error":
            frames.append(await client.receive())

    assert [f["type"] for f in frames if f.get("id") == id] == [
        "subscribed",
        "unsubscribed",
        "error",
    ]
