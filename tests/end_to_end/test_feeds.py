"""Feeds, as their clients receive them."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import asyncpg
import jwt
import pytest
from httpx2 import AsyncClient, Response
from websockets.exceptions import ConnectionClosed

from brain.embedded.server import serve_embedded
from tests.end_to_end.brain import RunningBrain, becomes, message, running_brain
from tests.end_to_end.following import (
    QUICKLY,
    Questions,
    closing,
    define,
    following,
    refusal,
    state,
    state_until,
)
from tests.end_to_end.test_losing_the_database import ready, writing
from tests.proxy import proxy_to

ADW = "INSERT INTO adw_states (adw_id, status) VALUES ('adw-1', 'running')"
COUNT = "SELECT to_jsonb(count(*)) FROM things"
THINGS = """
    CREATE TABLE things (id int PRIMARY KEY, note text);
    SELECT brain.watch('things', 'things', '{id}');
"""


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return QUICKLY


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
def brain(shared_brain: RunningBrain) -> RunningBrain:
    return shared_brain


async def http_get(brain: RunningBrain, path: str, **headers: str) -> Response:
    async with AsyncClient(trust_env=False) as client:
        return await client.get(f"{brain.http}/api/{path}", headers=headers)


async def test_the_whole_state_comes_at_once_and_again_when_it_has_changed(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO workflows (id, name) VALUES ('a', 'first')")
    async with following(brain, "workflows") as client:
        first = await message(client)
        await connection.execute("UPDATE workflows SET name = 'renamed'")
        second = await message(client)

    assert list(first) == ["type", "data"]
    assert first["type"] == "workflows_update"
    assert [row["name"] for row in first["data"]] == ["first"]
    assert [row["name"] for row in second["data"]] == ["renamed"]


async def test_a_thousand_changes_are_sent_as_a_few_states_and_the_last_is_right(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ADW)
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with following(brain, "adw-state/adw-1") as client:
            await state(client)
            begun = time.monotonic()
            for number in range(1, 1001):
                await connection.execute(
                    "UPDATE adw_states SET backend_port = $1 WHERE adw_id = 'adw-1'", number
                )
            last = {"adw_id": "adw-1", "status": "running", "backend_port": 1000}
            states = await state_until(client, last)
            passed = time.monotonic() - begun

    # The first change at once, and then one a second.
    assert 1 <= len(states) <= 1 + passed


async def test_one_transaction_of_a_thousand_changes_is_one_state(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with following(brain, "routes") as client:
        assert await state(client) == []
        await connection.execute(
            "INSERT INTO routes (path) SELECT '/' || n FROM generate_series(1, 1000) n"
        )
        assert len(await state(client)) == 1000


async def test_what_changes_nothing_sends_nothing(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO workflows (id, name) VALUES ('a', 'first')")
    await connection.execute(ADW)
    async with (
        following(brain, "workflows") as client,
        following(brain, "adw-monitor") as monitor,
        following(brain, "routes") as fence,
    ):
        await state(client)
        before = await state(monitor)
        await state(fence)
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("INSERT INTO workflows (id, name) VALUES ('b', 'rolled back')")
        await transaction.rollback()
        for statement in (
            "UPDATE workflows SET name = name",
            "INSERT INTO workflows (id, name, status) VALUES ('c', 'over', 'failed')",
            "UPDATE adw_states SET nl_input = 'of no interest to the monitor',"
            " updated_at = now() + interval '1 hour'",
        ):
            await connection.execute(statement)
        # Once these states have been sent, every earlier change has been handled.
        for number in range(1, 6):
            await connection.execute("INSERT INTO routes (path) VALUES ($1)", f"/{number}")
            assert len(await state(fence)) == number
        await connection.execute("UPDATE workflows SET name = 'second' WHERE id = 'a'")
        await connection.execute(
            "UPDATE adw_states SET status = 'paused', updated_at = '2100-01-01Z'"
        )

        assert [row["name"] for row in await state(client)] == ["second"]
        after = await state(monitor)

    assert (before["summary"]["running"], after["summary"]["running"]) == (1, 0)
    assert after["summary"]["paused"] == 1
    assert before["last_updated"] < after["last_updated"] == "2100-01-01T00:00:00Z"


async def test_an_unknown_adw_is_null_until_it_is_born(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with following(brain, "adw-state/adw-1") as client:
        first = await message(client)
        await connection.execute("INSERT INTO adw_states (adw_id) VALUES ('adw-2')")
        await connection.execute(ADW)
        born = await state(client)
        await connection.execute("DELETE FROM adw_states WHERE adw_id = 'adw-1'")
        gone = await state(client)
        await connection.execute(ADW)
        assert await state(client) == born
        await connection.execute("TRUNCATE adw_states")
        assert await state(client) is None

    assert first == {"type": "adw_state_update", "data": None}
    assert born == {"adw_id": "adw-1", "status": "running"}
    assert gone is None


async def test_changes_of_rows_with_another_key_run_no_query(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await connection.execute(THINGS)
    query = await questions.query(
        " + length($1) + (SELECT count(*) FROM things WHERE id = $1::int)"
    )
    options = {"takes_argument": True, "argument_is_key": True}
    await define(connection, "thing", query, "things", **options)
    await define(connection, "fence", COUNT, "things")
    async with following(brain, "thing/1") as client, following(brain, "fence") as fence:
        assert await state(client) == 2
        assert await state(fence) == 0
        before = await questions.count()
        for number in range(2, 7):
            await connection.execute("INSERT INTO things VALUES ($1)", number)
            assert await state(fence) == number - 1
        assert await questions.count() == before
        await connection.execute("INSERT INTO things VALUES (1)")
        assert await state(client) == 3

    assert await questions.count() == before + 1


async def test_a_feed_without_subscribers_is_not_queried(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await connection.execute(THINGS)
    await define(connection, "counted", await questions.query(), "things")
    await define(connection, "fence", COUNT, "things")
    async with following(brain, "counted") as client:
        await state(client)
    async with following(brain, "fence") as fence:
        before = await questions.count()
        for number in range(1, 4):
            assert await state(fence) == number - 1
            await connection.execute("INSERT INTO things VALUES ($1)", number)
        assert await state(fence) == 3

    assert await questions.count() == before


async def test_many_clients_that_connect_at_once_share_one_query(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    questions = Questions(connection)
    await define(connection, "counted", await questions.query(), "things")
    before = await questions.count()

    async with AsyncExitStack() as stack:
        clients = await asyncio.gather(
            *(stack.enter_async_context(following(brain, "counted")) for _ in range(100))
        )
        assert await asyncio.gather(*map(state, clients)) == [1] * 100

    assert await questions.count() == before + 1


async def test_a_feed_may_be_added_changed_and_dropped_while_brain_runs(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    assert await refusal(brain, "things") == 404

    await define(connection, "things", COUNT, "things")
    async with following(brain, "things") as client:
        assert await message(client) == {"type": "things_update", "data": 0}
        await connection.execute("INSERT INTO things VALUES (1)")
        assert await state(client) == 1

        await define(connection, "things", "SELECT jsonb_agg(id) FROM things", "others")
        assert await state(client) == [1]
        await define(connection, "fence", COUNT, "things")
        async with following(brain, "fence") as fence:
            for number in range(2, 7):
                assert await state(fence) == number - 1
                await connection.execute("INSERT INTO things VALUES ($1)", number)
            assert await state(fence) == 6
        await connection.execute(
            "INSERT INTO things VALUES (7); SELECT brain.publish('others', 'look')"
        )
        assert await state(client) == [1, 2, 3, 4, 5, 6, 7]

        await connection.execute("SELECT brain.drop_feed('things')")
        assert await closing(client) == 4010

    assert await refusal(brain, "things") == 404
    assert (await http_get(brain, "things")).status_code == 404


async def test_a_client_that_does_not_read_gets_the_newest_state_and_few_between(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    query = "SELECT jsonb_build_array(count(*), repeat('x', 1000000)) FROM things"
    await define(connection, "large", query, "things")
    little = socket.create_connection(("localhost", brain.port))
    little.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    async with (
        following(brain, "large", sock=little, max_queue=1) as slow,
        following(brain, "large") as quick,
    ):
        assert (await state(quick))[0] == 0
        for number in range(1, 41):
            await connection.execute("INSERT INTO things VALUES ($1)", number)
            assert (await state(quick))[0] == number

        received = [(await state(slow))[0]]
        while received[-1] != 40:
            received.append((await state(slow))[0])

    assert len(received) < 20
    assert received == sorted(received)


async def test_two_nodes_send_the_same_states(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    async with (
        running_brain(tmp_path / "one", "--database-url", database, **QUICKLY) as one,
        running_brain(tmp_path / "two", "--database-url", database, **QUICKLY) as two,
        following(one, "queue") as here,
        following(two, "queue") as there,
    ):
        await state(here)
        await state(there)
        await connection.execute("INSERT INTO phase_queue (issue_number, phase) VALUES ('1', 'p')")
        found = await state(here)
        assert found == await state(there)
        tags = {(await http_get(node, "queue")).headers["etag"] for node in (one, two)}

    assert found["total"] == 1
    assert len(tags) == 1


async def test_clients_stay_while_the_database_is_gone_and_get_the_state_that_it_returns_with(
    tmp_path: Path,
) -> None:
    data = tmp_path / "data"
    with ExitStack() as first:
        server = first.enter_context(serve_embedded(data))
        # A restarted server may get another port.
        async with (
            proxy_to(server.url) as (url, proxy),
            running_brain(tmp_path, "--database-url", url, **QUICKLY) as brain,
        ):
            async with following(brain, "workflows") as client:
                assert await state(client) == []
                first.close()
                await ready(brain.http, 503)
                async with following(brain, "routes") as newcomer:
                    assert await closing(newcomer) == 4010
                answer = await http_get(brain, "routes")
                assert answer.status_code == 503
                assert answer.json()["error"].startswith("the database cannot be reached")
                assert await refusal(brain, "unreceived-of") == 503

                with serve_embedded(data) as again:
                    proxy.lead_to(again.url)
                    async with writing(again.url) as connection:
                        await connection.execute("INSERT INTO workflows (name) VALUES ('x')")
                    assert len(await state(client)) == 1
                    async with following(brain, "routes") as newcomer:
                        assert await state(newcomer) == []


async def test_a_query_that_fails_is_logged_once_and_nothing_false_is_sent(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(THINGS)
    await define(connection, "things", COUNT, "things")
    async with following(brain, "things") as client:
        assert await state(client) == 0
        await connection.execute("ALTER TABLE things RENAME TO elsewhere")
        await connection.execute("INSERT INTO elsewhere VALUES (1)")
        await becomes(lambda: "the feed things cannot be read" in brain.output.read_text())
        async with following(brain, "things") as newcomer:
            assert await closing(newcomer) == 4010
        answer = await http_get(brain, "things")
        reason = 'the feed things cannot be read: relation "public.things" does not exist'
        assert (answer.status_code, answer.json()) == (503, {"error": reason})
        await connection.execute("ALTER TABLE elsewhere RENAME TO things")
        assert await state(client) == 1

    lines = brain.output.read_text().splitlines()
    (warning,) = [line for line in lines if "feed things: " in line]
    assert 'relation "public.things" does not exist' in warning


async def test_a_state_that_is_too_large_closes_the_connection_with_4500(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    little = {"BRAIN_SNAPSHOT_BYTES": "50", **QUICKLY}
    async with running_brain(tmp_path, "--database-url", database, **little) as brain:
        async with following(brain, "routes") as client:
            assert await state(client) == []
            await connection.execute("INSERT INTO routes (path) VALUES (repeat('long', 20))")
            assert await closing(client) == 4500
        longest = "a" * 63
        await define(connection, longest, "SELECT to_jsonb(repeat('x', 1000000))", "routes")
        async with following(brain, longest) as client:
            with pytest.raises(ConnectionClosed) as closed:
                await client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 4500
            assert "(BRAIN_SNAPSHOT_BYTES=50)" in closed.value.rcvd.reason
        answer = await http_get(brain, "routes")

    assert (answer.status_code, "50" in answer.json()["error"]) == (413, True)


async def test_over_http_the_bare_state_is_sent_only_if_it_has_changed(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    await connection.execute(ADW)
    answer = await http_get(brain, "adw-monitor")
    tag = answer.headers["etag"]
    await connection.execute("UPDATE adw_states SET updated_at = now() + interval '1 hour'")
    again = await http_get(brain, "adw-monitor", **{"if-none-match": f'"other", {tag}'})
    await connection.execute("UPDATE adw_states SET status = 'failed'")
    another = await http_get(brain, "adw-monitor", **{"if-none-match": tag})

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json()["summary"]["total"] == 1
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    assert (another.status_code, another.json()["summary"]["failed"]) == (200, 1)
    assert (await http_get(brain, "adw-state/adw-1")).json()["adw_id"] == "adw-1"
    assert (await http_get(brain, "adw-state/none")).json() is None


@pytest.mark.parametrize(
    "path",
    [
        "nothing",
        "adw-state",
        "workflows/a",
        "a%00b",
        "adw-state/a%00b",
        "adw-state/" + "a" * 256,
        "Queue",
    ],
)
async def test_an_unknown_feed_is_404(brain: RunningBrain, path: str) -> None:
    assert await refusal(brain, path) == 404
    assert (await http_get(brain, path)).status_code == 404


async def test_any_text_of_a_client_keeps_its_connection_open(
    brain: RunningBrain, connection: asyncpg.Connection
) -> None:
    async with following(brain, "routes") as client:
        assert await state(client) == []
        for text in ("ping", "", '{"type": "ping"}', "[" * 64, "no { JSON"):
            await client.send(text)
        await connection.execute("INSERT INTO routes (path) VALUES ('/')")
        assert await state(client) == [{"path": "/", "method": "GET"}]
        await client.send(b"ping")
        assert await closing(client) == 1003
    async with following(brain, "routes") as client:
        await client.send("[" * 65)
        assert await closing(client) == 4501


async def test_a_token_determines_the_readable_feeds(tmp_path: Path, database: str) -> None:
    secret = "0123456789abcdef0123456789abcdef"

    def bearer(seconds: float = 60, **claims: object) -> dict[str, str]:
        claims = {"sub": "ann", "exp": time.time() + seconds, **claims}
        return {"authorization": f"Bearer {jwt.encode(claims, secret, 'HS256')}"}

    locked = {
        "BRAIN_JWT_SECRET": secret,
        "BRAIN_PUBLIC_CHANNELS": "routes",
        "BRAIN_JWT_LEEWAY_SECONDS": "0",
    }
    async with running_brain(tmp_path, "--database-url", database, **locked) as brain:
        others = {"additional_headers": bearer(channels=["others"])}
        assert await refusal(brain, "queue") == 403
        assert await refusal(brain, "queue", **others) == 403
        assert await refusal(brain, "nothing") == 403
        assert await refusal(brain, "routes") == 101
        assert await refusal(brain, "queue", additional_headers=bearer(channels="q*")) == 101
        assert (await http_get(brain, "queue")).status_code == 401
        assert (await http_get(brain, "queue", **bearer(channels=[]))).status_code == 403
        assert (await http_get(brain, "queue", **bearer())).status_code == 200

        async with following(brain, "queue", additional_headers=bearer(seconds=2)) as client:
            assert json.dumps(await state(client))
            assert await closing(client) == 4401
