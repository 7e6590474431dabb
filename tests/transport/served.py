"""Brain's endpoints over real sockets, with a hub to which the test delivers batches."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from brain.auth.access_function import AccessFunction
from brain.auth.origin import Origins
from brain.auth.policy import authority_for
from brain.auth.tickets import Tickets
from brain.database.history import HistoryReader
from brain.database.snapshot import SnapshotReader
from brain.database.table_access import TableAccess
from brain.hub.hub import Hub
from brain.listener.batch_source import BatchSource
from brain.message.channel_schema import ChannelSchemas
from brain.message.cursor import Cursor
from brain.message.event import Batch, Event, Operation
from brain.presence.cluster import Cluster
from brain.presence.tracker import PresenceTracker
from brain.process.server import transport_limits
from brain.reload import limits, quotas
from brain.session.admission import Admission
from brain.session.connection_limiter import ConnectionLimiter
from brain.session.connection_log import ConnectionLog
from brain.session.draining import Draining
from brain.session.registry import SessionRegistry
from brain.session.session import SessionContext
from brain.session.sources import Sources
from brain.settings import Settings
from brain.system import System, installed_systems
from brain.transport.event_stream import EventStreamProtocol
from brain.transport.handshake import Handshake
from brain.transport.limits import TransportLimits
from brain.transport.websocket import websocket_protocol
from brain.web import event_stream, v1_endpoint
from brain.web import websocket_endpoint as endpoint
from brain.web.error_responses import exception_handlers
from brain.web.services import Services
from tests.message.rows import as_json

NO_DATABASE = "postgresql://127.0.0.1:1/none"


def a_task(id: str, tick: int = 1, number: int = 1, text: str = "") -> Event:
    data = {"id": id, "status": "queued", "progress": 0, "error": text or None}
    return Event(
        *Cursor(tick, 5, number),
        datetime.now(UTC),
        "tasks",
        Operation.INSERT,
        as_json([id]),
        as_json(data),
        None,
        size_bytes=100 + len(text),
    )


def new_hub(ring_bytes: int = 10_000_000) -> Hub:
    hub = Hub(ring_bytes, ring_seconds=60)
    hub.deliver(Batch((), Cursor(0, 5)))
    return hub


def application(
    hub: Hub,
    pool: Any = None,
    *,
    settings: Settings | None = None,
    access_function: AccessFunction | None = None,
    limiter: ConnectionLimiter | None = None,
    systems: Sequence[System] | None = None,
    snapshots: SnapshotReader | None = None,
) -> Starlette:
    """
    Return an application with the endpoints of all systems, or of those given, without feeds.

    `pool` is used to catch up; `app.state.registry` is the registry of its sessions.
    """
    chosen = settings or Settings(max_message_depth=10)
    if systems is None:
        systems = list(installed_systems().values())
    schemas = ChannelSchemas(schema for system in systems for schema in system.channel_schemas)
    presence = PresenceTracker()
    registry = SessionRegistry(presence)
    authority = authority_for(chosen, access_function)
    admission = Admission(
        authority, limiter or ConnectionLimiter(quotas(chosen)), Origins(chosen.allowed_origins)
    )
    services = Services(
        settings=chosen,
        database_url=NO_DATABASE,
        schemas=schemas,
        source=BatchSource(NO_DATABASE, chosen),
        authority=authority,
        tickets=Tickets(chosen.database_timeout_seconds),
        handshake=Handshake(admission, chosen.unread_timeout_seconds),
        sessions=SessionContext(
            authority,
            registry,
            limits(chosen),
            chosen.jwt_leeway_seconds,
            connection_log=ConnectionLog(has_addresses=chosen.log_addresses),
        ),
        draining=Draining(registry, chosen.drain_seconds),
        presence=presence,
        cluster=Cluster(NO_DATABASE, presence, chosen.database_timeout_seconds),
        snapshots=snapshots or SnapshotReader(TableAccess(10_000)),
    )

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, object]]:
        history = HistoryReader(pool, timeout_seconds=1)
        yield {"sources": Sources(hub, history, partial(services.snapshots.read, pool))}

    profiles = [profile for system in systems for profile in system.profiles(schemas)]
    app = Starlette(
        routes=[
            *v1_endpoint.routes(services),
            *event_stream.routes(services),
            *endpoint.routes(services, profiles),
            *(route for system in systems for route in system.routes(services)),
        ],
        exception_handlers=exception_handlers(services.problems),
        lifespan=lifespan,
    )
    app.state.registry = registry
    app.state.services = services
    return app


def limited(**changed: Any) -> TransportLimits:
    """Return the default limits of a transport, with some changed."""
    return replace(transport_limits(Settings()), **changed)


@asynccontextmanager
async def served(
    app: ASGIApp, limits: TransportLimits | None = None, **settings: Any
) -> AsyncIterator[tuple[int, uvicorn.Server]]:
    """Serve `app` by Brain's protocol classes; yield the port and the server."""
    limits = limits or limited()
    config = uvicorn.Config(
        app,
        port=0,
        ws=websocket_protocol(limits),
        http=cast(type[asyncio.Protocol], partial(EventStreamProtocol, limits=limits)),
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
