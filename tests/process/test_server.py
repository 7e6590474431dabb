from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette

from brain.presence.tracker import PresenceTracker
from brain.process.server import Server, uvicorn_config
from brain.session.draining import Draining
from brain.session.registry import SessionRegistry
from brain.settings import Settings

PATIENCE_SECONDS = 20.0


@pytest.fixture
async def running() -> AsyncIterator[None]:
    """Serve an application without routes."""
    thresholds = gc.get_threshold()
    ready, is_stopping = asyncio.Event(), False
    server = Server(
        uvicorn_config(Starlette(), Settings()),
        Draining(SessionRegistry(PresenceTracker()), seconds=0),
        on_ready=ready.set,
        should_stop=lambda: is_stopping,
        is_worker=True,
        grace_seconds=1,
    )
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server._serve([listener]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ready.wait()
        yield
        is_stopping = True
        await task
    gc.set_threshold(*thresholds)
    gc.unfreeze()


async def test_a_server_that_is_ready_has_frozen_what_exists(running: None) -> None:
    assert gc.get_freeze_count() > 0


async def test_a_server_collects_what_is_new_all_the_time(running: None) -> None:
    before = gc.get_stats()[1]["collections"]
    async with asyncio.timeout(PATIENCE_SECONDS):
        while gc.get_stats()[1]["collections"] < before + 3:
            await asyncio.sleep(0.01)
