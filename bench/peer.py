"""
A minimal server that forwards notifications to WebSocket clients, to compare Brain with.

    python -m bench.peer postgresql://user@host/database [PORT]

It keeps no log, loses notifications that are sent while its connection is down, and makes the
writer fail above 8,000 bytes. It prints its port when it is ready; without PORT, any free one.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import uvicorn
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

CHANNEL = "changes"
BACKLOG = 2048


def build_app(url: str, port: int) -> Starlette:
    queues: set[asyncio.Queue[str]] = set()

    def forward(*notification: object) -> None:
        for queue in queues:
            queue.put_nowait(str(notification[-1]))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        connection = await asyncpg.connect(url)
        await connection.add_listener(CHANNEL, forward)
        print(port, flush=True)
        yield
        await connection.close()

    async def send(websocket: WebSocket) -> None:
        await websocket.accept()
        queue: asyncio.Queue[str] = asyncio.Queue()
        queues.add(queue)
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.send_text(await queue.get())

    return Starlette(routes=[WebSocketRoute("/ws", send)], lifespan=lifespan)


@asynccontextmanager
async def running_peer(url: str) -> AsyncIterator[int]:
    """Run the server in a separate process until the context ends; yield its port."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.peer", url), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        yield int(await process.stdout.readline())
    finally:
        # It has no state to clean up.
        process.kill()
        await process.wait()


def main() -> None:
    port = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    with socket.create_server(("127.0.0.1", port), backlog=BACKLOG) as listening:
        config = uvicorn.Config(
            build_app(sys.argv[1], listening.getsockname()[1]),
            ws="websockets-sansio",
            ws_per_message_deflate=False,
            log_level="error",
        )
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
