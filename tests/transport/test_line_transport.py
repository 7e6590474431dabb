"""A transport that Brain does not know serves every kind of session."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import pytest

from brain.app import build_app
from brain.auth.policy import Decided
from brain.feeds.feed_session import FeedSession
from brain.message.base_format import BaseFormat
from brain.message.cursor_format import CursorFormat
from brain.session.admission import Admitted
from brain.session.channel_session import ChannelSession, SessionRequest
from brain.session.session import Session
from brain.settings import Settings
from brain.system import installed_systems
from brain.web.services import Services
from tests.transport.line_transport import LineTransport


class Client:
    """One end of a plain socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    def send(self, message: Any) -> None:
        self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Any:
        return json.loads(await self.line())

    async def line(self) -> bytes:
        return await asyncio.wait_for(self._reader.readline(), 10)

    async def leave(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


@pytest.fixture
async def port(database: str) -> AsyncIterator[int]:
    """The port of a Brain that serves lines."""
    app = build_app(database, Settings(feed_interval_seconds=0.05), [*installed_systems().values()])
    services: Services = app.state.services
    wire_format = CursorFormat(BaseFormat(services.schemas))
    async with app.router.lifespan_context(app) as state:
        assert state is not None

        def session_for(transport: LineTransport, opening: Any) -> Session:
            identity = services.authority.anonymous()
            admitted = Admitted(transport, identity, services.handshake.admission.limiter.admit(""))
            if "feed" in opening:
                address = opening["feed"], None
                return FeedSession(admitted, services.sessions, state["feeds"], address)
            request = SessionRequest(wire_format, opening["channels"], after=opening.get("cursor"))
            access = Decided(identity.may_read)
            return ChannelSession(admitted, services.sessions, state["sources"], request, access)

        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: LineTransport(session_for), "127.0.0.1")
        await state["feeds"].address("workflows", None)
        async with server:
            yield server.sockets[0].getsockname()[1]


@asynccontextmanager
async def client(port: int, **opening: Any) -> AsyncIterator[Client]:
    one = Client(*await asyncio.open_connection("127.0.0.1", port))
    one.send(opening)
    try:
        yield one
    finally:
        await one.leave()


async def test_a_channel_session_sends_changes_and_answers(
    port: int, connection: asyncpg.Connection
) -> None:
    async with client(port, channels=["tasks"]) as one:
        assert (await one.receive())["type"] == "connected"
        one.send({"hello": "brain"})
        assert (await one.receive())["data"] == {"hello": "brain"}
        await connection.execute("INSERT INTO tasks (id, status) VALUES ('a', 'completed')")
        message = await one.receive()

    assert (message["type"], message["data"]["id"]) == ("run_complete", "a")


async def test_a_feed_session_sends_each_state(port: int, connection: asyncpg.Connection) -> None:
    async with client(port, feed="workflows") as one:
        assert await one.receive() == {"type": "workflows_update", "data": []}
        await connection.execute("INSERT INTO workflows (id, name) VALUES ('a', 'build')")
        state = await one.receive()

    assert [workflow["id"] for workflow in state["data"]] == ["a"]


async def test_a_client_that_resumes_gets_what_it_missed(
    port: int, connection: asyncpg.Connection
) -> None:
    async with client(port, channels=["tasks"]) as one:
        cursor = (await one.receive())["cursor"]
    for number in range(3):
        await connection.execute("INSERT INTO tasks (id) VALUES ($1)", f"missed-{number}")

    async with client(port, channels=["tasks"], cursor=cursor) as one:
        await one.receive()
        missed = [(await one.receive())["data"]["id"] for _ in range(3)]

    assert missed == ["missed-0", "missed-1", "missed-2"]


async def test_a_limit_closes_the_connection_with_its_code(port: int) -> None:
    async with client(port, channels=["tasks"]) as one:
        await one.receive()
        one.send(json.loads("[" * 100 + "]" * 100))
        assert await one.line() == b"closed 4501 nested too deeply\n"
