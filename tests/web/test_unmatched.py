"""What is answered where no route is: plain requests to WebSockets, and unknown paths."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from httpx2 import AsyncClient
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from brain.app import build_app
from brain.settings import Settings
from brain.system import System, installed_systems
from tests.systems.sixth_system import Sixth
from tests.transport.served import served

WEBSOCKETS = (
    "/ws",
    "/ws?token=ann",
    "/ws/v1",
    "/ws/connect",
    "/ws/channel/missions",
    "/ws/short/tasks",
    "/ws/workflows",
    "/ws/adw-state/adw-1",
    "/api/v1/ws/workflows",
    "/api/v1/ws/adw-state/adw-1",
)
UNKNOWN = (
    "/ws/",
    "//ws",
    "/WS",
    "/ws/connect/",
    "/ws/workflows/",
    "/ws/nothing",
    "/ws/workflows/x",
    "/ws/adw-state/a/b",
    "/nothing",
    "/nothing/at/all",
    "/healthz/",
    "/api",
    "/api/",
    "/api/nothing",
    "/api/brain/tasks/",
    "/api/v1",
    "/api/v1/ws",
    "/api/v1/ws/",
    "/api/v1/ws/nothing",
    "/%2e%2e/ws",
)
NO_HANDSHAKES: tuple[dict[str, str], ...] = (
    {},
    {"upgrade": "websocket"},
    {"connection": "upgrade"},
    {"upgrade": "h2c", "connection": "upgrade"},
)


@pytest.fixture
def systems() -> list[System]:
    return [*installed_systems().values(), Sixth()]


@pytest.fixture
async def port(database: str, systems: list[System]) -> AsyncIterator[int]:
    """The port of a Brain with all systems."""
    async with served(build_app(database, Settings(), systems)) as (port, _):
        yield port


async def refusal(port: int, path: str) -> tuple[int, str]:
    """Return the status and the text with which a handshake is refused."""
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{port}{path}", proxy=None)
    return refused.value.response.status_code, (refused.value.response.body or b"").decode()


async def test_a_plain_request_to_a_websocket_is_answered_with_426_and_a_line(port: int) -> None:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        for path in WEBSOCKETS:
            for headers in NO_HANDSHAKES:
                response = await client.get(path, headers=headers)
                assert response.status_code == 426, path
                assert response.headers["upgrade"] == "websocket"
                assert response.headers["connection"].lower() == "upgrade"
                assert response.text.endswith("\n") and len(response.text.splitlines()) == 1
            assert (await client.head(path)).status_code == 426
            assert (await client.post(path)).status_code == 405
            async with connect(f"ws://127.0.0.1:{port}{path}", proxy=None):
                pass


async def test_an_unknown_path_is_404_for_requests_and_websockets(port: int) -> None:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        for path in UNKNOWN:
            for method in ("GET", "POST", "OPTIONS"):
                response = await client.request(method, f"http://127.0.0.1:{port}{path}")
                expected = (404,) if method == "GET" else (404, 405)
                assert response.status_code in expected, (method, path)
            status, text = await refusal(port, path)
            assert (status, len(text.splitlines())) == (404, 1), path
        for path in ("/healthz", "/api/brain/tasks", "/api/ws/stats"):
            assert (await client.get(path)).status_code == 200
            assert (await refusal(port, path))[0] == 404


@pytest.mark.parametrize("systems", [[]])
async def test_without_systems_their_websockets_are_unknown_too(port: int) -> None:
    async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
        assert (await client.get("/ws")).status_code == 426
        for path in ("/ws/connect", "/ws/channel/a", "/api/v1/ws/workflows", "/api/v1/workflows"):
            assert (await client.get(path)).status_code == 404
            assert (await refusal(port, path))[0] == 404


async def test_a_plain_request_does_not_tell_which_feeds_there_are(database: str) -> None:
    settings = Settings(jwt_secret=SecretStr("0123456789abcdef0123456789abcdef"))
    async with served(build_app(database, settings, [])) as (port, _):
        async with AsyncClient(trust_env=False) as client:
            for feed in ("workflows", "nothing"):
                response = await client.get(f"http://127.0.0.1:{port}/ws/{feed}")
                assert response.status_code == 426
