"""What requests that fail are answered, and WebSockets whose client is gone."""

from __future__ import annotations

import asyncio
import logging

import pytest
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.web.error_responses import EXCEPTION_HANDLERS
from tests.raw_websocket import connected_to, handshake
from tests.transport.served import served


async def test_a_client_that_vanishes_during_the_handshake_is_no_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    reached, may_accept = asyncio.Event(), asyncio.Event()

    async def endpoint(websocket: WebSocket) -> None:
        reached.set()
        await may_accept.wait()
        await websocket.accept()

    app = Starlette(
        routes=[WebSocketRoute("/ws", endpoint)], exception_handlers=dict(EXCEPTION_HANDLERS)
    )
    async with served(app) as (port, server), asyncio.timeout(10):
        async with connected_to(port) as raw:
            await raw.send(handshake("/ws"))
            await reached.wait()
            raw.reset()
        while server.server_state.connections:
            await asyncio.sleep(0.01)
        may_accept.set()
        while server.server_state.tasks:
            await asyncio.sleep(0.01)

    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
