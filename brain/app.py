"""Joins the rooms."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any, TypedDict

import asyncpg
from starlette.applications import Starlette

from brain.auth import authority
from brain.database.attendance import Attendance
from brain.database.connection import DISCONNECTIONS, opened_pool, told
from brain.database.feeds import FeedReader
from brain.database.history import HistoryReader
from brain.database.nodes import Nodes
from brain.database.retention import forget_old_events
from brain.database.revocations import Revocations
from brain.database.rules import Rules
from brain.database.snapshot import SnapshotReader
from brain.database.watches import warn_of_problems
from brain.hub.hub import Hub
from brain.listener.backoff import delays
from brain.listener.listener import Listener
from brain.settings import Settings
from brain.web import feeds as feed_states
from brain.web import health, page, snapshot, status, tasks, users
from brain.web.channels import ChannelsApi
from brain.websocket import endpoint
from brain.websocket import feeds as feed_endpoint
from brain.websocket.entrance import entrance_by
from brain.websocket.keeper import FeedKeeper
from brain.websocket.telling import Sources
from brain.websocket.visitors import Visitors

# How long to wait for the database before serving without it.
STARTUP_SECONDS = 5.0

logger = logging.getLogger(__name__)


class State(TypedDict):
    pool: asyncpg.Pool
    sources: Sources
    feeds: FeedKeeper
    feed_reader: FeedReader


async def relay(
    pool: asyncpg.Pool,
    listener: Listener,
    hub: Hub,
    revocations: Revocations,
    visitors: Visitors,
    feeds: FeedKeeper,
) -> None:
    """Carry every change from the database to whoever is listening, and still may."""
    is_loaded = False
    async for batch in listener.batches():
        if not is_loaded or not batch.follows:
            await load(revocations, pool)
            is_loaded = True
        for user in revocations.take(batch):
            visitors.revoke(user)
        hub.deliver(batch)
        feeds.wake(batch)


async def load(revocations: Revocations, pool: asyncpg.Pool) -> None:
    """Learn who was revoked so far: before that is known, nobody is told anything."""
    for seconds in delays():
        try:
            await revocations.load(pool)
        except DISCONNECTIONS as error:
            logger.warning("cannot read whose tokens are revoked: %s", told(error))
            await asyncio.sleep(seconds)
        else:
            return


async def keep(hub: Hub, visitors: Visitors, heartbeat_seconds: float) -> None:
    """See that the hub forgets what is old, and that nobody wonders who is still there."""
    while True:
        await asyncio.sleep(min(1.0, heartbeat_seconds / 4))
        hub.tick(datetime.now(UTC), heartbeat_seconds)
        visitors.dismiss_silent()


def create_app(url: str, settings: Settings, *, warns: bool = True) -> Starlette:
    """
    Return the application that follows the database at `url`.

    If one of its tasks dies, so does the process: a server that answers and never tells anything
    is worse than none. `app.state.failure` then says what it died of. It `warns` of what is wrong
    with watched tables: of several workers one is enough.
    """
    listener = Listener(url, settings)
    hub = Hub(settings.ring_bytes, settings.ring_seconds)
    rules, revocations = Rules(settings.database_timeout_seconds), Revocations()
    decides = authority(settings, rules, revocations)
    attendance = Attendance()
    visitors = Visitors(attendance)
    entrance = entrance_by(settings, decides, visitors)
    nodes = Nodes(url, attendance, settings.database_timeout_seconds)
    snapshots = SnapshotReader(settings.snapshot_bytes)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[State]:
        async with opened_pool(url) as pool:
            reader = FeedReader(pool, settings.snapshot_bytes, settings.database_timeout_seconds)
            feeds = FeedKeeper(reader, settings.feed_seconds)
            work: dict[str, Coroutine[Any, Any, None]] = {
                "listener": relay(pool, listener, hub, revocations, visitors, feeds),
                "feeds": feeds.keep(),
                "hub": keep(hub, visitors, settings.heartbeat_seconds),
                "counting of clients": nodes.beat(),
                "rule of channels": rules.follow(pool),
                "retention": forget_old_events(pool, settings.retention_seconds),
            }
            if warns:
                work["watches"] = warn_of_problems(pool)
            at_work = [asyncio.create_task(one, name=name) for name, one in work.items()]
            for task in at_work:
                task.add_done_callback(end_process)
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(STARTUP_SECONDS):
                        await listener.live()
                        await rules.known()
                history = HistoryReader(pool, settings.database_timeout_seconds)
                yield {
                    "pool": pool,
                    "sources": Sources(hub, pool, history, snapshots),
                    "feeds": feeds,
                    "feed_reader": reader,
                }
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
            *endpoint.routes(entrance),
            *feed_endpoint.routes(entrance),
            *ChannelsApi(
                decides, settings.allowed_origins, nodes.everywhere, nodes.subscribers
            ).routes(),
            *users.routes(decides, settings.allowed_origins),
            *health.routes(url, lambda: listener.statistics().is_live, nodes.everywhere),
            *status.routes(
                lambda: attendance.counts().clients, listener.statistics, nodes.clients_elsewhere
            ),
            *tasks.routes(decides),
            *snapshot.routes(snapshots, decides),
            *page.routes(),
            *feed_states.routes(decides),
        ],
        lifespan=lifespan,
    )
    app.state.failure = None
    return app
