"""Joins the rooms."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import TypedDict

import asyncpg
from starlette.applications import Starlette

from brain.auth import authority
from brain.database.connection import opened_pool
from brain.database.history import HistoryReader
from brain.database.nodes import Nodes
from brain.database.retention import forget_old_events
from brain.database.snapshot import SnapshotReader
from brain.database.watches import warn_of_problems
from brain.hub.hub import Hub
from brain.listener.listener import Listener
from brain.settings import Settings
from brain.web import page, snapshot, status, tasks
from brain.websocket import endpoint
from brain.websocket.conversation import Sources
from brain.websocket.doorkeeper import Doorkeeper, DoorLimits
from brain.websocket.endpoint import Entrance

# How long to wait for the database before serving without it.
STARTUP_SECONDS = 5.0

logger = logging.getLogger(__name__)


class State(TypedDict):
    pool: asyncpg.Pool
    sources: Sources


async def relay(listener: Listener, hub: Hub) -> None:
    """Carry every change from the database to whoever is listening."""
    async for batch in listener.batches():
        hub.deliver(batch)


async def keep(hub: Hub, heartbeat_seconds: float) -> None:
    """See that the hub forgets what is old, and lets no client wonder whether it is still there."""
    while True:
        await asyncio.sleep(min(1.0, heartbeat_seconds / 4))
        hub.tick(datetime.now(UTC), heartbeat_seconds)


def create_app(url: str, settings: Settings, *, warns: bool = True) -> Starlette:
    """
    Return the application that follows the database at `url`.

    If one of its tasks dies, so does the process: a server that answers and never tells anything
    is worse than none. `app.state.failure` then says what it died of. It `warns` of what is wrong
    with watched tables: of several workers one is enough.
    """
    listener = Listener(url, settings)
    hub = Hub(settings.ring_bytes, settings.ring_seconds)
    decides = authority(settings)
    nodes = Nodes(url, lambda: hub.statistics().subscribers, settings.database_timeout_seconds)
    snapshots = SnapshotReader(settings.snapshot_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        async with opened_pool(url) as pool:
            at_work = [
                asyncio.create_task(relay(listener, hub), name="listener"),
                asyncio.create_task(keep(hub, settings.heartbeat_seconds), name="hub"),
                asyncio.create_task(
                    forget_old_events(pool, settings.retention_seconds), name="retention"
                ),
                asyncio.create_task(nodes.beat(), name="counting of clients"),
            ]
            if warns:
                at_work.append(asyncio.create_task(warn_of_problems(pool), name="watches"))
            for task in at_work:
                task.add_done_callback(end_process)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STARTUP_SECONDS):
                        await listener.live()
                history = HistoryReader(pool, settings.database_timeout_seconds)
                yield {"pool": pool, "sources": Sources(hub, pool, history, snapshots)}
            finally:
                for task in at_work:
                    task.remove_done_callback(end_process)
                    task.cancel()
                await asyncio.wait(at_work)

    def end_process(task: asyncio.Task[None]) -> None:
        failure = asyncio.CancelledError() if task.cancelled() else task.exception()
        app.state.failure = failure
        logger.critical("the %s died", task.get_name(), exc_info=failure)
        signal.raise_signal(signal.SIGTERM)

    app = Starlette(
        routes=[
            *endpoint.routes(
                Entrance(
                    decides,
                    Doorkeeper(
                        DoorLimits(
                            in_all=settings.connections,
                            per_address=settings.connections_per_address,
                            per_user=settings.connections_per_user,
                            anonymous=settings.anonymous_connections,
                        )
                    ),
                    settings.message_depth,
                    settings.unread_seconds,
                    settings.allowed_origins,
                    settings.jwt_leeway_seconds,
                )
            ),
            *status.routes(hub, listener.statistics, nodes.clients_elsewhere),
            *tasks.routes(decides),
            *snapshot.routes(snapshots, decides),
            *page.routes(),
        ],
        lifespan=lifespan,
    )
    app.state.failure = None
    return app
