"""Clients of the tests' own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from tests.seeds.conftest import Served
from tests.seeds.heartbeats import next_message


def client(served: Served, path: str, **options: Any) -> connect:
    """Connect to `path`, which may greet the client or not."""
    return connect(f"ws://{served.address}{path}", proxy=None, **options)


async def received(connection: ClientConnection, count: int) -> list[dict[str, Any]]:
    """Return the next messages, heartbeats apart."""
    return [await next_message(connection) for _ in range(count)]


def bearer(token: str) -> dict[str, dict[str, str]]:
    """Return the options of a client that sends its token in a header."""
    return {"additional_headers": {"authorization": f"Bearer {token}"}}


def values(messages: Sequence[dict[str, Any]], *path: str) -> list[Any]:
    """Return what each message has under keys within keys."""
    found: list[Any] = list(messages)
    for key in path:
        found = [one[key] for one in found]
    return found
