"""Brain's endpoints over real sockets, with a hub that the test feeds by hand."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from brain.auth import authority
from brain.database.attendance import Attendance
from brain.database.history import HistoryReader
from brain.database.snapshot import SnapshotReader
from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.settings import Settings
from brain.websocket import endpoint
from brain.websocket.entrance import entrance_by
from brain.websocket.protocol import ConnectionLimits, HttpProtocol, WebSocketProtocol
from brain.websocket.telling import Sources
from brain.websocket.visitors import Visitors


def a_task(id: str, tick: int = 1, number: int = 1, text: str = "") -> Event:
    data = {"id": id, "status": "queued", "progress": 0, "error": text or None}
    return Event(
        Cursor(tick, 5, number),
        datetime.now(UTC),
        "tasks",
        Operation.INSERT,
        [id],
        data,
        None,
        size_bytes=100 + len(text),
    )


def new_hub(ring_bytes: int = 10_000_000) -> Hub:
    hub = Hub(ring_bytes)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


def application(
    hub: Hub,
    pool: Any = None,
    *,
    settings: Settings | None = None,
    **changed: Any,
) -> Starlette:
    """Return the endpoints, over a pool that they may ask; some of the entrance is `changed`."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        history = HistoryReader(pool, timeout_seconds=1)
        yield {"sources": Sources(hub, pool, history, SnapshotReader(10_000))}

    kept = settings or Settings(message_depth=10)
    visitors = Visitors(Attendance())
    decides = authority(kept)
    entrance = replace(entrance_by(kept, decides, visitors), **changed)
    app = Starlette(routes=endpoint.routes(entrance), lifespan=lifespan)
    app.state.visitors = visitors
    return app


@asynccontextmanager
async def served(
    app: ASGIApp, limits: ConnectionLimits | None = None, **settings: Any
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve `app` by Brain's protocol classes; yield the port and the server."""
    kept = limits or ConnectionLimits()
    config = uvicorn.Config(
        app,
        port=0,
        ws=cast(type[asyncio.Protocol], partial(WebSocketProtocol, limits=kept)),
        http=cast(type[asyncio.Protocol], partial(HttpProtocol, limits=kept)),
        ws_per_message_deflate=False,
        log_config=None,
        timeout_graceful_shutdown=2,
        **settings,
    )
    server = uvicorn.Server(config)
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    task = asyncio.create_task(server._serve())
    while not server.started:
        assert not task.done()
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1], server
    finally:
        server.should_exit = True
        await task
