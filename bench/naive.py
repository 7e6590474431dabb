"""
The naive fan-out server: a set of WebSockets, and a loop that sends to one after the other.

    python -m bench.naive [--compresses]

It runs on the Starlette and uvicorn that are installed for Brain, and prints its port when it is
ready. It sends each message of a JSON list that is posted to `/publish` to every client that is
connected to `/ws`. `--compresses` leaves uvicorn's compression on, which is its default.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from bench.contender import Contender, connected_poster
from bench.note import Notes
from bench.usage import end

BACKLOG = 2048

# The clients of `bench.load` do not answer pings.
PING_SECONDS = 3600


def build_app() -> Starlette:
    clients: set[WebSocket] = set()

    async def publish(request: Request) -> Response:
        for message in await request.json():
            for websocket in list(clients):
                await websocket.send_json(message)
        return Response("sent")

    async def receive(websocket: WebSocket) -> None:
        await websocket.accept()
        clients.add(websocket)
        with suppress(WebSocketDisconnect):
            while True:
                await websocket.receive_text()
        clients.discard(websocket)

    return Starlette(
        routes=[Route("/publish", publish, methods=["POST"]), WebSocketRoute("/ws", receive)]
    )


@asynccontextmanager
async def running_naive(name: str, notes: Notes, *options: str) -> AsyncIterator[Contender]:
    """Run the server in a separate process until the context ends."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.naive", *options), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout
        port = int(await process.stdout.readline())
        async with connected_poster(port) as poster:

            async def publish(numbers: Sequence[int]) -> None:
                messages = [notes.compact(number) for number in numbers]
                await poster.post("/publish", [orjson.dumps(messages)])

            yield Contender(name, port, process.pid, publish)
    finally:
        await end(process)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=BACKLOG) as listening:
        config = uvicorn.Config(
            build_app(),
            ws_per_message_deflate="--compresses" in sys.argv,
            ws_ping_interval=PING_SECONDS,
            ws_ping_timeout=PING_SECONDS,
            timeout_keep_alive=PING_SECONDS,
            log_level="error",
        )
        # Clients that connect before uvicorn accepts wait in the backlog.
        print(listening.getsockname()[1], flush=True)
        uvicorn.Server(config).run([listening])


if __name__ == "__main__":
    main()
