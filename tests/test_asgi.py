"""Brain in an application of somebody's: mounted, under any server, with its authenticator."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest
import uvicorn
from httpx2 import AsyncClient
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.routing import Mount
from starlette.types import ASGIApp
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from brain import Authenticated, Connection, Settings, create_app
from brain.asgi import BrainApp
from brain.errors import MigrationsPending, UsageError
from tests.end_to_end.brain import becomes, ended
from tests.postgres import new_database
from tests.transport.test_asgi import hypercorn

PATIENCE_SECONDS = 20.0
ORDERS = """
    CREATE TABLE orders (id integer PRIMARY KEY, owner text, status text);
    SELECT brain.watch('orders', 'orders', '{id,owner,status}');
    INSERT INTO orders VALUES (1, 'ann', 'new'), (2, 'bob', 'new');
"""

MaybeConnection = Connection | None
Known = Authenticated | None
Server = Callable[[ASGIApp], AbstractAsyncContextManager[int]]


@asynccontextmanager
async def plain_uvicorn(app: ASGIApp) -> AsyncIterator[int]:
    """Serve by uvicorn's own protocol classes."""
    config = uvicorn.Config(app, port=0, log_config=None, lifespan="on")
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        assert not task.done(), "it has not started"
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        await task


@pytest.fixture(params=[plain_uvicorn, hypercorn], ids=["uvicorn", "hypercorn"])
def server(request: pytest.FixtureRequest) -> Server:
    chosen: Server = request.param
    return chosen


@pytest.fixture
async def url(core_database: str) -> AsyncIterator[str]:
    connection = await asyncpg.connect(core_database)
    await connection.execute(ORDERS)
    await connection.close()
    yield core_database


def mounted(live: BrainApp, **state: Any) -> Starlette:
    """Return an application of somebody's that has Brain below /live."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        async with live:
            yield state

    return Starlette(routes=[Mount("/live", live)], lifespan=lifespan)


async def by_cookie(connection: Connection | None, token: str | None) -> Authenticated | None:
    """Know a client by a cookie, or by an API key."""
    if token is not None:
        return (
            Authenticated(user="robot", channels=[], publish=["news"]) if token == "key" else None
        )
    user = connection.cookies.get("user") if connection is not None else None
    return Authenticated(user=user, channels=["orders"]) if user else None


async def received(websocket: Any) -> dict[str, Any]:
    async with asyncio.timeout(PATIENCE_SECONDS):
        frame: dict[str, Any] = json.loads(await websocket.recv())
    return frame


async def until(websocket: Any, **members: Any) -> dict[str, Any]:
    """Return the next frame with these members."""
    while not members.items() <= (frame := await received(websocket)).items():
        pass
    return frame


async def subscribed(websocket: Any, channel: str, **options: Any) -> dict[str, Any]:
    frame = {"type": "subscribe", "id": "a", "channel": channel, **options}
    await websocket.send(json.dumps(frame))
    return await until(websocket, id="a")


def web(port: int, **options: Any) -> AsyncClient:
    return AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, **options)


def cookie(user: str) -> dict[str, str]:
    return {"cookie": f"user={user}"}


async def test_a_mounted_brain_sends_rows_and_changes_under_any_server(
    url: str, server: Server
) -> None:
    live = create_app(url, authenticator=by_cookie)
    async with (
        server(mounted(live)) as port,
        connect(
            f"ws://127.0.0.1:{port}/live/ws/v1", additional_headers=cookie("ann"), proxy=None
        ) as websocket,
    ):
        assert (await received(websocket))["user"] == "ann"
        await subscribed(websocket, "orders", snapshot=True)
        rows = (await until(websocket, op="snapshot"))["rows"]
        assert [row["key"] for row in rows] == [[1], [2]]
        await until(websocket, op="live")
        connection = await asyncpg.connect(url)
        await connection.execute("UPDATE orders SET status = 'paid' WHERE id = 2")
        await connection.close()
        change = await until(websocket, op="update")
        assert change["row"] == {"id": 2, "owner": "bob", "status": "paid"}


async def test_an_end_that_is_cancelled_while_clients_are_closed_leaves_no_task_behind(
    url: str,
) -> None:
    live = create_app(url, authenticator=by_cookie)
    async with plain_uvicorn(Starlette(routes=[Mount("/live", live)])) as port:
        before = asyncio.all_tasks()
        await live.__aenter__()
        running = {task.get_name() for task in asyncio.all_tasks() - before}
        assert {"batch source", "hub", "retention"} <= running
        address = f"ws://127.0.0.1:{port}/live/ws/v1"
        async with connect(address, additional_headers=cookie("ann"), proxy=None) as websocket:
            await received(websocket)
            ending = asyncio.create_task(live.__aexit__(None, None, None))
            await asyncio.sleep(0)  # now it waits for the client
            assert not ending.done()
            ending.cancel()
            with pytest.raises(asyncio.CancelledError):
                await ending
            assert not running & {task.get_name() for task in asyncio.all_tasks() - before}


async def test_a_mounted_brain_streams_events_under_any_server(url: str, server: Server) -> None:
    live = create_app(url, authenticator=by_cookie)
    async with server(mounted(live)) as port, web(port, headers=cookie("ann")) as client:
        address = "/live/sse?channel=orders&snapshot"
        async with client.stream("GET", address) as response:
            assert response.status_code == 200
            lines: AsyncIterator[str] = response.aiter_lines()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while '"op":"live"' not in await anext(lines):
                    pass


async def test_addresses_are_those_below_the_mount(url: str) -> None:
    live = create_app(url, systems=["cecelia"])
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        summary = (await client.get("/live/", headers={"accept": "application/json"})).json()
        openapi = (await client.get("/live/openapi.json")).json()
        asyncapi = (await client.get("/live/asyncapi.json")).json()
        status = (await client.get("/live/api/brain/status/ws")).json()
        page = await client.get("/live/", headers={"accept": "text/html"})
        missing = await client.get("/live/no/such/address")

        assert summary["links"]["websocket"] == "/live/ws"
        assert all(link.startswith("/live/") for link in summary["links"].values())
        for link in (summary["links"]["ready"], summary["links"]["status"]):
            assert (await client.get(link)).status_code == 200
        assert openapi["servers"] == [{"url": "."}]
        assert {one.get("pathname") for one in asyncapi["servers"].values()} == {"/live"}
        assert status["websocket"]["endpoint"] == "/live/ws"
        assert page.status_code == 200 and missing.status_code == 404


async def test_what_the_authenticator_says_decides_what_a_client_may_do(url: str) -> None:
    live = create_app(url, authenticator=by_cookie)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        orders, key = "/live/api/brain/snapshot/orders", {"authorization": "Bearer key"}
        found = [
            (await client.get(orders, headers=headers)).status_code
            for headers in ({}, cookie("ann"), {"authorization": "Bearer no"}, key)
        ]
        assert found == [401, 200, 401, 403]
        address = f"ws://127.0.0.1:{port}/live/ws/v1"
        async with connect(address, additional_headers=key, proxy=None) as robot:
            assert (await received(robot))["user"] == "robot"
            publish = {"type": "publish", "id": "p", "message_type": "t", "data": {}}
            await robot.send(json.dumps({**publish, "channel": "news"}))
            assert (await until(robot, id="p"))["type"] == "published"
            await robot.send(json.dumps({**publish, "channel": "orders"}))
            assert (await until(robot, id="p"))["code"] == "not_allowed"


async def test_an_open_websocket_goes_on_with_another_token(url: str) -> None:
    connections: list[object] = []

    async def authenticate(
        connection: Connection | None, token: str | None
    ) -> Authenticated | None:
        connections.append(connection)
        channels = {"one": ["news"], "two": ["news", "orders"]}.get(token or "")
        return None if channels is None else Authenticated(user="ann", channels=channels)

    live = create_app(url, authenticator=authenticate)
    async with plain_uvicorn(mounted(live)) as port:
        address = f"ws://127.0.0.1:{port}/live/ws/v1?token=one"
        async with connect(address, proxy=None) as client:
            await received(client)
            assert (await subscribed(client, "orders"))["code"] == "not_allowed"
            await client.send(json.dumps({"type": "auth", "id": "t", "token": "two"}))
            assert (await until(client, id="t"))["type"] == "authenticated"
            assert (await subscribed(client, "orders"))["type"] == "subscribed"
            await client.send(json.dumps({"type": "auth", "id": "t", "token": "three"}))
            assert (await until(client, id="t"))["code"] == "invalid_token"
    assert connections[0] is not None and connections[1:] == [None, None]


async def test_row_rules_find_the_claims_of_the_authenticator(url: str) -> None:
    async def authenticate(
        connection: Connection | None, token: str | None
    ) -> Authenticated | None:
        return Authenticated(user="7", channels=["*"], claims={"name": token, "sub": "not this"})

    connection = await asyncpg.connect(url)
    await connection.execute("SELECT brain.restrict('orders', '{\"owner\": \"name\"}')")
    await connection.close()
    live = create_app(url, authenticator=authenticate)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        for name, ids in (("ann", [1]), ("bob", [2]), ("eve", [])):
            response = await client.get(f"/live/api/brain/snapshot/orders?token={name}")
            assert [row["id"] for row in response.json()["rows"]] == ids


async def test_a_connection_ends_when_its_authentication_does(url: str) -> None:
    async def authenticate(
        connection: Connection | None, token: str | None
    ) -> Authenticated | None:
        soon = datetime.now(UTC) + timedelta(seconds=0.2)
        return Authenticated(user="ann", expires_at=soon)

    live = create_app(url, settings=Settings(jwt_leeway_seconds=0), authenticator=authenticate)
    async with plain_uvicorn(mounted(live)) as port:
        async with connect(f"ws://127.0.0.1:{port}/live/ws/v1", proxy=None) as client:
            with pytest.raises(ConnectionClosed):
                await until(client, never="this")
            assert client.close_code == 4401


async def test_a_revocation_ends_the_connections_of_a_user_and_holds_for_its_session(
    url: str,
) -> None:
    began_at = time.time()

    async def authenticate(
        connection: Connection | None, token: str | None
    ) -> Authenticated | None:
        claims = {"iat": began_at} if token == "old" else {"iat": time.time() + 60}
        return Authenticated(user="ann", channels=["orders"], claims=claims)

    live = create_app(url, authenticator=authenticate)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        address = f"ws://127.0.0.1:{port}/live/ws/v1?token=old"
        async with connect(address, proxy=None) as websocket:
            await received(websocket)
            connection = await asyncpg.connect(url)
            await connection.execute("SELECT brain.revoke('ann')")
            await connection.close()
            with pytest.raises(ConnectionClosed):
                await until(websocket, never="this")
            assert websocket.close_code == 4503
        orders = "/live/api/brain/snapshot/orders?token="
        assert (await client.get(orders + "old")).status_code == 401
        assert (await client.get(orders + "new")).status_code == 200


@pytest.mark.parametrize(
    "failure", ["raises", "hangs", "returns nonsense", "has no user", "began at no time"]
)
async def test_a_client_is_refused_with_503_while_the_authenticator_fails(
    url: str, failure: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def authenticate(connection: Connection | None, token: str | None) -> Any:
        if failure == "raises":
            raise LookupError("no such table")
        if failure == "hangs":
            await asyncio.Event().wait()
        if failure == "began at no time":
            return Authenticated(user="ann", claims={"iat": "today"})
        return {"user": "ann"} if failure == "returns nonsense" else Authenticated(user="")

    settings = Settings(handshake_timeout_seconds=0.3)
    live = create_app(url, settings=settings, authenticator=authenticate)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        response = await client.get("/live/api/brain/snapshot/orders")
        assert response.status_code == 503 and "no such table" not in response.text
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/live/ws/v1", proxy=None)
        assert refused.value.response.status_code == 503
    assert "the authenticator" in caplog.text


async def test_the_authenticator_finds_the_state_of_the_application(url: str) -> None:
    async def authenticate(
        connection: Connection | None, token: str | None
    ) -> Authenticated | None:
        assert connection is not None
        return Authenticated(user=connection.state.owner, channels=["orders"])

    live = create_app(url, authenticator=authenticate)
    async with plain_uvicorn(mounted(live, owner="ann")) as port:
        async with connect(f"ws://127.0.0.1:{port}/live/ws/v1", proxy=None) as client:
            assert (await received(client))["user"] == "ann"


async def test_a_page_of_another_site_is_refused_though_it_has_the_cookie(url: str) -> None:
    live = create_app(url, authenticator=by_cookie)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        headers = {**cookie("ann"), "origin": "https://evil.example"}
        response = await client.get("/live/api/brain/snapshot/orders", headers=headers)
        assert response.status_code == 403
        with pytest.raises(InvalidStatus) as refused:
            address = f"ws://127.0.0.1:{port}/live/ws/v1"
            await connect(address, additional_headers=headers, proxy=None)
        assert refused.value.response.status_code == 403
        own = {**cookie("ann"), "origin": f"http://127.0.0.1:{port}"}
        response = await client.get("/live/api/brain/snapshot/orders", headers=own)
        assert response.status_code == 200


@pytest.mark.parametrize(
    ("has_authenticator", "allowed_hosts", "status"),
    [
        (False, (), 403),
        (False, ("shop.example",), 200),
        (True, (), 200),
        (True, ("b.example",), 403),
    ],
)
async def test_a_brain_that_needs_no_token_is_for_this_machine_unless_hosts_are_named(
    url: str, has_authenticator: bool, allowed_hosts: tuple[str, ...], status: int
) -> None:
    live = create_app(
        url,
        settings=Settings(allowed_hosts=allowed_hosts),
        authenticator=by_cookie if has_authenticator else None,
    )
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        headers = {"host": "shop.example", **cookie("ann")}
        response = await client.get("/live/api/brain/snapshot/orders", headers=headers)
        assert response.status_code == status
        # Load balancers ask by any name.
        assert (await client.get("/live/healthz", headers=headers)).status_code == 200


async def test_no_word_is_a_token_unless_that_is_set(url: str) -> None:
    for setting, user in ((None, None), (True, "user_ann")):
        live = create_app(url, settings=Settings(development_tokens=setting))
        async with plain_uvicorn(mounted(live)) as port:
            address = f"ws://127.0.0.1:{port}/live/ws/v1?token=ann"
            async with connect(address, proxy=None) as client:
                assert (await received(client))["user"] == user


async def test_a_server_serves_brain_alone_and_again(url: str, server: Server) -> None:
    live = create_app(url)
    for _ in range(2):
        async with server(live) as port, web(port) as client:
            assert (await client.get("/readyz")).json()["status"] == "ready"


async def test_to_import_brain_imports_no_application() -> None:
    code = "import brain, sys; print(brain.__version__, 'starlette' in sys.modules)"
    done = await ended((sys.executable, "-c", code))
    assert done.stdout.split()[1:] == ["False"], done.stderr


async def test_an_application_that_has_not_entered_brain_is_told_how(url: str) -> None:
    live = create_app(url)
    with pytest.raises(RuntimeError, match="async with live"):
        await live({"type": "http", "path": "/"}, None, None)  # type: ignore[arg-type]
    async with live:
        with pytest.raises(RuntimeError, match="once"):
            await live.__aenter__()


@pytest.fixture
def failures() -> Iterator[list[BaseException]]:
    yield []


async def test_a_brain_that_fails_ends_its_clients_and_refuses_others(
    url: str, failures: list[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    live = create_app(url, on_failure=failures.append)
    async with plain_uvicorn(mounted(live)) as port, web(port) as client:
        async with connect(f"ws://127.0.0.1:{port}/live/ws/v1", proxy=None) as websocket:
            await received(websocket)
            (task,) = (one for one in asyncio.all_tasks() if one.get_name() == "batch source")
            task.cancel()
            with pytest.raises(ConnectionClosed):
                await until(websocket, never="this")
            assert websocket.close_code == 1012
        await becomes(lambda: failures)
        assert (await client.get("/live/readyz")).status_code == 503
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/live/ws/v1", proxy=None)
        assert refused.value.response.status_code == 503
    assert "the task 'batch source' died" in caplog.text


async def test_settings_that_are_wrong_together_are_refused(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UsageError, match="takes the place of Brain's tokens"):
        create_app(url, settings=Settings(jwt_secret=SecretStr("s" * 40)), authenticator=by_cookie)
    with pytest.raises(UsageError, match="BRAIN_METRICS_PORT is for `brain serve`"):
        create_app(url, settings=Settings(metrics_port=9521))
    with pytest.raises(UsageError, match="unknown system nothing"):
        create_app(url, systems=["nothing"])
    monkeypatch.delenv("DATABASE_URL", raising=False)
    with pytest.raises(UsageError, match="needs a database_url"):
        create_app()


async def test_a_database_that_is_not_migrated_is_refused_if_brain_may_not_migrate_it(
    postgres: str,
) -> None:
    async with new_database(postgres) as empty:
        live = create_app(empty, settings=Settings(migrate=False))
        with pytest.raises(MigrationsPending):
            await live.__aenter__()


async def test_an_application_may_drain_before_its_server_stops(url: str, server: Server) -> None:
    live = create_app(url, settings=Settings(allowed_hosts=("*",)))
    async with server(mounted(live)) as port:
        async with (
            connect(f"ws://127.0.0.1:{port}/live/ws?channel=orders", proxy=None) as client,
            web(port) as http,
        ):
            await received(client)
            assert (await http.get("/live/readyz")).status_code == 200

            await live.drain()

            with pytest.raises(ConnectionClosed) as closed:
                await received(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012
            answer = await http.get("/live/readyz")
            assert (answer.status_code, answer.json()) == (503, {"status": "draining"})
