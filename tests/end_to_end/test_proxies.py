"""Brain behind nginx, HAProxy and Caddy, with TLS and below a path, as `deploy/` has them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Any
from urllib.parse import urljoin

import asyncpg
import pytest
from httpx2 import AsyncClient, TransportError
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import (
    PATIENCE_SECONDS,
    RunningBrain,
    has_sent_everything,
    message,
    running_brain,
)
from tests.end_to_end.proxies import PROXIES, RunningProxy, running_proxy
from tests.session.v1_client import V1Client

IDLE_SECONDS = 2
ORDERS = """
    CREATE TABLE orders (id int PRIMARY KEY, status text);
    SELECT brain.watch('orders', 'orders', '{id,status}');
"""


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    # Both are below the idle limit of the proxies.
    return {"BRAIN_HEARTBEAT_SECONDS": "0.5", "BRAIN_PING_SECONDS": "1"}


@pytest.fixture
def database(shared_database: str) -> str:
    return shared_database


@pytest.fixture
async def brain(
    module_brain: RunningBrain, database: str, connection: asyncpg.Connection
) -> RunningBrain:
    await connection.execute(ORDERS)
    await has_sent_everything(module_brain, database)
    return module_brain


@pytest.fixture(scope="module", params=PROXIES)
async def module_proxy(
    request: pytest.FixtureRequest,
    module_brain: RunningBrain,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[RunningProxy]:
    folder = tmp_path_factory.mktemp(request.param)
    async with running_proxy(request.param, folder, module_brain.port, IDLE_SECONDS) as proxy:
        yield proxy


@pytest.fixture
async def proxy(module_proxy: RunningProxy, brain: RunningBrain) -> RunningProxy:
    """A proxy in front of a Brain that has sent everything that happened before this test."""
    return module_proxy


@asynccontextmanager
async def v1_behind(proxy: RunningProxy) -> AsyncIterator[V1Client]:
    """Connect to `/ws/v1` through a proxy."""
    async with websocket(proxy, "/ws/v1") as connected:
        client = V1Client(connected)
        client.hello = await client.receive()
        yield client


def websocket(proxy: RunningProxy, path: str) -> connect:
    return connect(f"{proxy.wss}{path}", proxy=None, max_size=None, ssl=proxy.certificates)


async def test_rows_and_frames_pass_in_both_directions_and_a_client_resumes(
    proxy: RunningProxy, connection: asyncpg.Connection
) -> None:
    async with v1_behind(proxy) as client:
        assert client.hello["type"] == "hello"
        await client.subscribe("orders")
        await connection.execute("INSERT INTO orders VALUES (1, 'new')")
        frame = await client.receive()
        assert (frame["op"], frame["row"]) == ("insert", {"id": 1, "status": "new"})
    await connection.execute("UPDATE orders SET status = 'paid'")
    async with v1_behind(proxy) as client:
        await client.subscribe("orders", after=frame["cursor"])
        missed = await client.frames(2)
        assert [(f["op"], f.get("row")) for f in missed] == [
            ("update", {"id": 1, "status": "paid"}),
            ("live", None),
        ]


async def test_rows_come_on_ws_too(proxy: RunningProxy, connection: asyncpg.Connection) -> None:
    async with websocket(proxy, "/ws?channel=orders&cursor=") as client:
        assert (await message(client))["type"] == "connected"
        await connection.execute("INSERT INTO orders VALUES (1, 'new')")
        await client.send('{"test": 1}')
        received = [await unless_heartbeat(client) for _ in range(2)]
        assert {each["type"] for each in received} == {"orders_inserted", "echo"}


async def unless_heartbeat(client: ClientConnection) -> dict[str, Any]:
    while (received := await message(client))["type"] == "heartbeat":
        pass
    return received


async def test_an_idle_connection_outlasts_the_limit_of_the_proxy(
    proxy: RunningProxy, connection: asyncpg.Connection
) -> None:
    async with v1_behind(proxy) as client:
        await client.subscribe("orders")
        begun = monotonic()
        while monotonic() < begun + IDLE_SECONDS + 1:
            assert (await client.receive_any())["type"] == "ping"
        await connection.execute("INSERT INTO orders VALUES (1, 'new')")
        assert (await client.receive())["op"] == "insert"


async def test_a_large_message_passes(proxy: RunningProxy, connection: asyncpg.Connection) -> None:
    text = "€" * 80_000
    async with v1_behind(proxy) as client:
        await client.subscribe("orders")
        await connection.execute("INSERT INTO orders VALUES (1, $1)", text)
        assert (await client.receive())["row"]["status"] == text
        await client.send("publish", channel="orders", message_type="note", data="y" * 60_000)
        received = await client.frames(2)
        assert {f.get("type") for f in received} == {"published", "note"}
        assert [f["data"] for f in received if "data" in f] == ["y" * 60_000]


async def test_http_passes_with_the_path(proxy: RunningProxy) -> None:
    async with AsyncClient(trust_env=False, verify=proxy.certificates, http2=True) as client:
        response = await client.get(f"{proxy.https}/api/brain/snapshot/orders")
    assert (response.http_version, response.status_code) == ("HTTP/2", 200)
    assert response.json()["rows"] == []


@pytest.mark.parametrize("name", PROXIES)
async def test_the_documents_have_the_address_of_the_proxy(
    name: str, brain: RunningBrain, tmp_path: Path
) -> None:
    # They are made when they are first asked for: a proxy with a short limit may not wait for it.
    async with running_proxy(name, tmp_path, brain.port) as proxy:
        await expect_documents(proxy)


async def expect_documents(proxy: RunningProxy) -> None:
    async with AsyncClient(trust_env=False, verify=proxy.certificates) as client:
        openapi = await client.get(f"{proxy.https}/openapi.json")
        asyncapi = await client.get(f"{proxy.https}/asyncapi.json")
        server = urljoin(str(openapi.url), openapi.json()["servers"][0]["url"])
        assert (await client.get(f"{server.removesuffix('/')}/healthz")).status_code == 200
    found = asyncapi.json()["servers"]["websocket"]
    assert f"{found['protocol']}://{found['host']}{found['pathname']}" == proxy.wss


class Stream:
    """The events of `/sse`, as they come."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._unread = b""
        self.last_id = ""

    async def frame(self) -> dict[str, Any]:
        """Return the next frame."""
        while True:
            while b"\n\n" not in self._unread:
                async with asyncio.timeout(PATIENCE_SECONDS):
                    self._unread += await anext(self._chunks)
            event, _, self._unread = self._unread.partition(b"\n\n")
            lines = [line.partition(": ") for line in event.decode().split("\n")]
            fields = {name: value for name, _, value in lines}
            if "data" in fields:
                self.last_id = fields.get("id", self.last_id)
                frame: dict[str, Any] = json.loads(fields["data"])
                return frame

    async def until(self, name: str) -> dict[str, Any]:
        """Return the next frame with this `type` or `op`."""
        while (frame := await self.frame()).get("op", frame.get("type")) != name:
            pass
        return frame


@asynccontextmanager
async def stream(
    proxy: RunningProxy, version: str = "HTTP/1.1", last_id: str = ""
) -> AsyncIterator[Stream]:
    """Open a stream of orders through a proxy, with the rows that there are."""
    headers = {"last-event-id": last_id} if last_id else {}
    url = f"{proxy.https}/sse?channel=orders&snapshot"
    async with (
        AsyncClient(
            trust_env=False,
            verify=proxy.certificates,
            http1=version != "HTTP/2",
            http2=version == "HTTP/2",
            timeout=None,
        ) as client,
        client.stream("GET", url, headers=headers) as response,
    ):
        assert (response.status_code, response.http_version) == (200, version)
        yield Stream(response.aiter_bytes())


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_events_come_while_the_stream_is_open_and_a_client_resumes(
    proxy: RunningProxy, version: str, connection: asyncpg.Connection
) -> None:
    await connection.execute("INSERT INTO orders VALUES (1, 'new')")
    async with stream(proxy, version) as events:
        rows = (await events.until("snapshot"))["rows"]
        assert [row["row"] for row in rows] == [{"id": 1, "status": "new"}]
        await events.until("live")
        for status in ("paid", "€" * 80_000):
            await connection.execute("UPDATE orders SET status = $1", status)
            assert (await events.until("update"))["row"]["status"] == status
    await connection.execute("DELETE FROM orders")
    async with stream(proxy, version, events.last_id) as events:
        assert [(await events.frame()).get("type") for _ in range(2)] == ["hello", "subscribed"]
        # The server may read the change only after the client has caught up with it.
        change = await events.frame()
        if change["op"] == "live":
            change = await events.frame()
        assert change["op"] == "delete"


@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/2"])
async def test_an_idle_stream_outlasts_the_limit_of_the_proxy(
    proxy: RunningProxy, version: str, connection: asyncpg.Connection
) -> None:
    async with stream(proxy, version) as events:
        await events.until("live")
        begun = monotonic()
        while monotonic() < begun + IDLE_SECONDS + 1:
            assert (await events.frame())["type"] == "ping"
        await connection.execute("INSERT INTO orders VALUES (1, 'new')")
        await events.until("insert")


async def test_clients_resume_after_a_restart_of_brain(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    options = ("--database-url", database)
    async with AsyncExitStack() as stack:
        async with running_brain(tmp_path, *options) as brain:
            proxies = await running_proxies(stack, tmp_path, brain.port)
            clients = [await stack.enter_async_context(v1_behind(proxy)) for proxy in proxies]
            cursors = [(await client.subscribe("orders"))["cursor"] for client in clients]
            streams = [await stack.enter_async_context(stream(proxy)) for proxy in proxies]
            for events in streams:
                await events.until("live")
            brain.process.kill()
            await brain.stopped()
        for client in clients:
            with pytest.raises(ConnectionClosed):
                await client.receive()
        for events in streams:
            with pytest.raises((StopAsyncIteration, TransportError)):
                await events.until("insert")
        await connection.execute("INSERT INTO orders VALUES (1, 'new')")
        for proxy in proxies:
            with pytest.raises(InvalidStatus) as refused:
                await websocket(proxy, "/ws/v1")
            assert refused.value.response.status_code in (502, 503)
        async with running_brain(tmp_path, *options, "--port", str(brain.port)):
            for proxy in proxies:
                await is_healthy(proxy)
            for proxy, cursor in zip(proxies, cursors, strict=True):
                async with v1_behind(proxy) as client:
                    await client.subscribe("orders", after=cursor)
                    assert [f["op"] for f in await client.frames(2)] == ["insert", "live"]
            for proxy, former in zip(proxies, streams, strict=True):
                async with stream(proxy, last_id=former.last_id) as events:
                    assert (await events.until("insert"))["row"]["id"] == 1


async def is_healthy(proxy: RunningProxy) -> None:
    """Return once a proxy has noticed that there is a Brain again."""
    async with (
        AsyncClient(trust_env=False, verify=proxy.certificates) as client,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        while (await client.get(f"{proxy.https}/healthz")).status_code != 200:
            await asyncio.sleep(0.1)


class Resuming:
    """A client that comes back with its cursor, and the ids of the orders that it got."""

    def __init__(self, proxy: RunningProxy) -> None:
        self.proxy = proxy
        self.ids: list[int] = []
        self.close_codes: list[int | None] = []

    async def until(self, last: int, on_live: asyncio.Barrier) -> None:
        """Read until the order `last` has come."""
        cursor = None
        while last not in self.ids:
            async with v1_behind(self.proxy) as client:
                options: dict[str, str] = {"after": cursor} if cursor else {}
                cursor = (await client.subscribe("orders", **options)).get("cursor", cursor)
                if not self.close_codes:
                    await on_live.wait()
                try:
                    while last not in self.ids:
                        frame = await client.receive()
                        cursor = frame.get("cursor", cursor)
                        if frame.get("op") == "insert":
                            self.ids.append(frame["row"]["id"])
                except ConnectionClosed as closed:
                    self.close_codes.append(closed.rcvd.code if closed.rcvd else None)


async def test_while_one_of_two_brains_is_replaced_no_client_is_refused_or_loses_anything(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    await connection.execute(ORDERS)
    # Longer than twice the interval of HAProxy and Caddy.
    settings = {"BRAIN_DRAIN_DELAY_SECONDS": "5"}
    options = ("--database-url", database)
    async with AsyncExitStack() as stack:
        brains = []
        for folder in (tmp_path / "one", tmp_path / "two"):
            folder.mkdir()
            brain = running_brain(folder, *options, **settings)
            brains.append(await stack.enter_async_context(brain))
        ports = [brain.port for brain in brains]
        proxies = await running_proxies(stack, tmp_path, *ports)
        clients = [Resuming(proxy) for proxy in proxies for _ in range(4)]
        last, live = 1000, asyncio.Barrier(len(clients) + 1)
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(client.until(last, live))
            await live.wait()
            brains[0].process.terminate()
            written = await write_while_it_runs(brains[0], connection, proxies)
            await connection.execute("INSERT INTO orders VALUES ($1, 'new')", last)
        assert await brains[0].stopped() == 0
    assert [client.ids for client in clients] == [[*written, last]] * len(clients)
    # Each proxy has sent some of them to each Brain.
    for proxy in proxies:
        codes = {tuple(client.close_codes) for client in clients if client.proxy is proxy}
        assert codes == {(), (1012,)}


async def write_while_it_runs(
    brain: RunningBrain, connection: asyncpg.Connection, proxies: list[RunningProxy]
) -> list[int]:
    """Insert orders, and connect through each proxy, until a Brain has ended."""
    written: list[int] = []
    while brain.process.returncode is None:
        written.append(len(written) + 1)
        await connection.execute("INSERT INTO orders VALUES ($1, 'new')", written[-1])
        for proxy in proxies:
            async with v1_behind(proxy) as newcomer:
                assert newcomer.hello["type"] == "hello"
        await asyncio.sleep(0.1)
    return written


async def running_proxies(
    stack: AsyncExitStack, folder: Path, port: int, second_port: int | None = None
) -> list[RunningProxy]:
    """Run each of the proxies until the stack is closed."""
    proxies = []
    for name in PROXIES:
        (own := folder / name).mkdir()
        proxy = running_proxy(name, own, port, second_port=second_port)
        proxies.append(await stack.enter_async_context(proxy))
    return proxies
