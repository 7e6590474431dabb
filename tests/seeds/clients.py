"""WebSocket clients for the tests of the protocols."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.seeds.conftest import Served
from tests.seeds.heartbeats import next_message


def client(served: Served, path: str, **options: Any) -> connect:
    """Connect to `path`, without waiting for a greeting."""
    return connect(f"ws://{served.address}{path}", proxy=None, **options)


async def received(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next messages, without heartbeats."""
    return [await next_message(connection) for _ in range(count)]


def bearer(token: str) -> dict[str, dict[str, str]]:
    """Return the options of a client that sends its token in a header."""
    return {"additional_headers": {"authorization": f"Bearer {token}"}}


def values(messages: Sequence[dict[str, Any]], *path: str) -> list[Any]:
    """Return the value of each message at a path of keys."""
    found: list[Any] = list(messages)
    for key in path:
        found = [one[key] for one in found]
    return found
