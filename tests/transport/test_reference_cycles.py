"""What a connection leaves behind goes at once, and does not wait for the garbage collector."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest

from tests.raw_websocket import CLOSE, TEXT, RawClient, client_frame, connected_to, handshake
from tests.transport.served import application, limited, new_hub, served
from tests.transport.test_websocket import becomes

REQUEST = b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n"
SUBSCRIBE = orjson.dumps({"type": "subscribe", "id": "a", "channel": "tasks"})
OURS = ("brain.", "uvicorn.", "websockets.", "httptools.")


@contextmanager
def cycles() -> Iterator[Counter[str]]:
    """Count what only the garbage collector can free, by type, when the context ends."""
    found: Counter[str] = Counter()
    gc.collect()
    gc.disable()
    gc.set_debug(gc.DEBUG_SAVEALL)
    try:
        yield found
        gc.collect()
        kinds = [type(each) for each in gc.garbage]
        found.update(
            f"{kind.__module__}.{kind.__qualname__}"
            for kind in kinds
            if str(kind.__module__).startswith(OURS)
        )
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


async def use(raw: RawClient, path: str) -> None:
    """Open a connection, send and receive what there is, and close it."""
    if path.startswith("/ws"):
        await raw.send(handshake(path))
        await raw.receive_handshake()
        await raw.next_text()
        await raw.send_frame(TEXT, SUBSCRIBE)
        await raw.next_text()
        await raw.send(client_frame((1000).to_bytes(2), CLOSE))
        await raw.receive_to_the_end()
    else:
        await raw.send(REQUEST % path.encode())
        while b"\r\n\r\n" not in await raw.receive():
            pass


@pytest.mark.parametrize("path", ["/ws", "/ws?cursor=", "/ws/v1", "/sse?channel=tasks", "/nowhere"])
async def test_a_closed_connection_leaves_no_cycle(path: str) -> None:
    async with served(application(new_hub()), limited()) as (port, server):
        async with connected_to(port) as raw:  # what is made once for all
            await use(raw, path)
        await becomes(lambda: not server.server_state.connections)
        with cycles() as found:
            for _ in range(3):
                async with connected_to(port) as raw:
                    await use(raw, path)
                await becomes(lambda: not server.server_state.connections)
            await becomes(lambda: not server.server_state.tasks)
        assert found == {}
