"""The limits of connections in the five documents: number, tokens, rates and heartbeats."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import jwt
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import PATIENCE_SECONDS, message, running_brain
from tests.end_to_end.following import closing
from tests.postgres import new_database
from tests.seeds.clients import bearer, client, received
from tests.seeds.comparing import is_as_printed
from tests.seeds.conftest import SECRET, Served, token
from tests.seeds.heartbeats import next_message
from tests.seeds.impatient import CLIENT_TIMEOUT_SECONDS, HEARTBEAT_SECONDS
from tests.seeds.printed import printed

CLOUD_AGENTS, MISSION_CONTROL = "5-code-cloud-agents.md", "4-mission-control.md"

CONNECTIONS = 6
MESSAGES_PER_SECOND = 10
BYTES_PER_SECOND = 8192

AGENT = "INSERT INTO agents (id, status) VALUES ($1, 'online')"
TASK = "INSERT INTO tasks (id) VALUES ($1)"


@pytest.fixture(scope="module")
async def strict(
    postgres: str, template: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A Brain with low limits, which requires signed tokens."""
    folder = tmp_path_factory.mktemp("strict")
    environment = {
        "BRAIN_JWT_SECRET": SECRET,
        "BRAIN_JWT_LEEWAY_SECONDS": "0",
        "BRAIN_MAX_CONNECTIONS": str(CONNECTIONS),
        "BRAIN_MESSAGES_PER_SECOND": str(MESSAGES_PER_SECOND),
        "BRAIN_BYTES_PER_SECOND": str(BYTES_PER_SECOND),
        "BRAIN_PING_SECONDS": "1",
    }
    async with (
        new_database(postgres, template) as url,
        running_brain(folder, "--database-url", url, **environment) as brain,
    ):
        yield Served(brain, url)


@pytest.fixture
async def sql(strict: Served) -> AsyncIterator[asyncpg.Connection]:
    """A connection to the database; no client is connected to Brain any more."""
    await has_clients(strict, 0)
    connection = await asyncpg.connect(strict.database)
    yield connection
    await connection.close()


async def counts(served: Served) -> tuple[int, int]:
    """Return the numbers of clients in Cecelia Brain's status and Mission Control's health."""
    async with AsyncClient(trust_env=False) as http:
        status = (await http.get(f"{served.brain.http}/api/brain/status/ws")).json()
        health = (await http.get(f"{served.brain.http}/health")).json()
    return status["websocket"]["connected_clients"], health["websocket"]["connections"]


async def has_clients(served: Served, count: int) -> None:
    """Return once both numbers are `count`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while await counts(served) != (count, count):
            await asyncio.sleep(0.02)


async def refusal(served: Served, path: str) -> int:
    """Return the status with which a client is refused; 101 if it is not."""
    try:
        async with client(served, path):
            return 101
    except InvalidStatus as refused:
        return refused.response.status_code


async def test_a_client_that_closes_or_is_lost_is_no_longer_counted_and_the_others_go_on(
    strict: Served, sql: asyncpg.Connection
) -> None:
    signed = bearer(token())
    async with client(strict, "/ws", **signed) as tasks, client(strict, "/", **signed) as agents:
        async with client(strict, "/ws", **signed), client(strict, "/", **signed):
            async with client(strict, "/ws") as lost, client(strict, "/", **signed) as also_lost:
                await has_clients(strict, 6)
                lost.transport.abort()
                also_lost.transport.abort()
                await has_clients(strict, 4)
        await has_clients(strict, 2)
        await sql.execute(TASK, "after they left")
        await sql.execute(AGENT, "after they left")
        assert (await received(tasks, 2))[1]["data"]["id"] == "after they left"
        assert (await next_message(agents))["payload"]["agentId"] == "after they left"


async def test_as_many_clients_as_the_operator_allows_are_admitted_and_the_next_when_one_has_left(
    strict: Served, sql: asyncpg.Connection
) -> None:
    async with AsyncExitStack() as stack:
        for path in ("/ws", "/ws/connect"):
            for _ in range(CONNECTIONS // 2):
                last = await stack.enter_async_context(strict.brain.client(path))
        for path in ("/ws", "/ws/connect", "/ws/channel/missions"):
            assert await refusal(strict, path) == 503
        await last.close()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await refusal(strict, "/ws/connect") != 101:
                pass


async def test_a_client_whose_token_expires_has_to_reconnect_with_another_one(
    strict: Served, sql: asyncpg.Connection
) -> None:
    path = f"/?token={token(1)}"
    async with client(strict, path) as refreshed, client(strict, path) as expiring:
        await refreshed.send(json.dumps({"type": "auth", "token": token()}))
        assert await closing(expiring) == 4401
        assert await refusal(strict, path) == 401
        async with client(strict, f"/?token={token()}") as back:
            await sql.execute(AGENT, "after a token expired")
            for connection in (refreshed, back):
                payload = (await next_message(connection))["payload"]
                assert payload["agentId"] == "after a token expired"


def bad_tokens() -> dict[str, str]:
    """Return invalid tokens, by their fault."""
    claims = {"sub": "ann", "exp": time.time() + 60}
    return {
        "signature": token(secret="another secret, of thirty-two bytes"),
        "unsigned": jwt.encode(claims, "", algorithm="none"),
        "expired": token(-1),
        "not valid yet": token(nbf=time.time() + 30),
        "no user": token(sub=None),
    }


async def test_only_a_token_with_signature_expiry_and_claims_is_sent_what_they_allow(
    strict: Served, sql: asyncpg.Connection
) -> None:
    (auth,) = printed(CLOUD_AGENTS, "auth")
    async with AsyncExitStack() as stack:
        enter = stack.enter_async_context
        bad = [await enter(client(strict, f"/ws?token={one}")) for one in bad_tokens().values()]
        for connection in bad:
            answer = await next_message(connection)
            assert (answer["type"], answer["data"]) == (
                "auth",
                {"success": False, "error": "Auth failed"},
            )
        limited = token(sub="bob", channels=["agents"])
        good = await enter(client(strict, f"/ws?token={limited}"))
        expected = auth | {"data": {"success": True, "userId": "bob"}}
        assert is_as_printed(await next_message(good), expected)

        await sql.execute(TASK, "not for bob")
        await sql.execute(AGENT, "for bob")
        assert (await next_message(good))["data"]["agentName"] == "for bob"
        for connection in bad:
            await connection.send('{"type": "ping"}')
            assert (await next_message(connection))["type"] == "pong"


@pytest.mark.parametrize(
    ("path", "frame", "count"),
    [
        ("/", {"type": "unheard-of"}, 3 * MESSAGES_PER_SECOND),
        ("/ws", {"type": "pong"}, 3 * MESSAGES_PER_SECOND),
        ("/ws", {"type": "pong", "padding": "x" * (BYTES_PER_SECOND - 100)}, 3),
    ],
)
async def test_a_client_that_exceeds_the_rate_limit_is_warned_and_disconnected(
    strict: Served, sql: asyncpg.Connection, path: str, frame: dict[str, Any], count: int
) -> None:
    texts = []
    async with client(strict, f"{path}?token={token()}") as connection:
        with pytest.raises(ConnectionClosed) as closed:
            for _ in range(count):
                await connection.send(json.dumps(frame))
            while True:
                texts.append(json.dumps(await message(connection)))
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4029
    assert [text for text in texts if "Too many messages" in text]


async def test_a_client_that_answers_no_ping_of_the_protocol_is_cut_off(
    strict: Served, sql: asyncpg.Connection
) -> None:
    signed = bearer(token())
    async with client(strict, "/", **signed) as alive, client(strict, "/", **signed) as dead:
        await has_clients(strict, 2)
        dead.transport.pause_reading()
        await has_clients(strict, 1)
        dead.transport.abort()
        await sql.execute(AGENT, "after one was dead")
        assert (await next_message(alive))["payload"]["agentId"] == "after one was dead"


async def test_only_clients_that_have_to_answer_are_disconnected_when_they_do_not(
    impatient: Served,
) -> None:
    (heartbeat,) = printed(MISSION_CONTROL, "heartbeat")
    is_over = asyncio.Event()

    async def answer(connection: ClientConnection, type: str) -> None:
        while not is_over.is_set():
            if (await message(connection))["type"] == "ping":
                await connection.send(json.dumps({"type": type}))
        await connection.send('{"type": "ping"}')
        while (await message(connection))["type"] != "pong":
            pass

    async with (
        client(impatient, "/?token=silent") as silent,
        impatient.brain.client("/ws?token=ann") as one,
        impatient.brain.client("/ws?token=bob") as another,
        impatient.brain.client("/ws?token=mute") as mute,
        asyncio.TaskGroup() as tasks,
    ):
        tasks.create_task(answer(one, "pong"))
        tasks.create_task(answer(another, "ping"))
        assert await closing(mute) == 4408
        is_over.set()
        for _ in range(int(CLIENT_TIMEOUT_SECONDS / HEARTBEAT_SECONDS) + 1):
            assert is_as_printed(await message(silent), heartbeat)
