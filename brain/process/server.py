"""Serves an ASGI application until it should stop, and then until its clients are gone."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from types import FrameType
from typing import Protocol, cast

import uvicorn
from starlette.applications import Starlette

from brain.log_events import NOT_REPLACEABLE
from brain.process.garbage_collection import GarbageCollection
from brain.process.heartbeat import Heartbeat
from brain.session.draining import Draining
from brain.settings import Settings
from brain.transport.event_stream import EventStreamProtocol
from brain.transport.limits import TransportLimits
from brain.transport.websocket import websocket_protocol
from brain.web.services import Services

NO_WORKERS = (
    "SIGUSR2 replaces workers, and this Brain has none: serve with --workers 2 or more, or start"
    " another Brain on this database and then stop this one"
)

logger = logging.getLogger(__name__)


class Reload(Protocol):
    """What reads the settings again."""

    def is_due(self) -> bool:
        """Return True once for each time that it is to be done; called ten times a second."""
        ...

    async def run(self) -> Settings | None:
        """Do it; return other settings, or None if there are none."""
        ...


class Server(uvicorn.Server):
    """uvicorn that reports readiness, drains, shuts down in bounded time, and exits with 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        draining: Draining,
        *,
        on_ready: Callable[[], None],
        should_stop: Callable[[], bool],
        should_hurry: Callable[[], bool] = lambda: False,
        is_replaced: Callable[[], bool] = lambda: False,
        is_worker: bool,
        delay_seconds: float = 0.0,
        grace_seconds: float,
        on_stopping: Callable[[], None] = lambda: None,
        heartbeat: Heartbeat | None = None,
        limits: TransportLimits | None = None,
        reload: Reload | None = None,
    ) -> None:
        super().__init__(config)
        self._draining = draining
        self._on_ready = on_ready
        self._on_stopping = on_stopping
        self._should_stop = should_stop
        self._should_hurry = should_hurry
        self._is_replaced = is_replaced
        self._is_worker = is_worker
        self._delay_seconds = delay_seconds
        self._grace_seconds = grace_seconds
        self._leaving: asyncio.Task[None] | None = None
        self._heartbeat = heartbeat
        self._limits = limits
        self._reload = reload
        self._reloading: asyncio.Task[None] | None = None
        self._garbage_collection = GarbageCollection()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        beating = None if self._heartbeat is None else asyncio.create_task(self._heartbeat.run())
        try:
            await super().serve(sockets)
        finally:
            if beating is not None:
                beating.cancel()
                with suppress(asyncio.CancelledError):
                    await beating

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._garbage_collection.begin()
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        # uvicorn asks ten times a second whether it is to stop.
        self._garbage_collection.look()
        if self._should_hurry():
            self._draining.hurry()
        is_reloading = self._reloading is not None and not self._reloading.done()
        if self._reload is not None and not is_reloading and self._reload.is_due():
            self._reloading = asyncio.create_task(self._read_settings(), name="reloading")
        if (await super().on_tick(counter) or self._should_stop()) and self._leaving is None:
            self._leaving = asyncio.create_task(self._leave(), name="leaving")
        if self._leaving is None or not self._leaving.done():
            return False
        self._leaving.result()
        return True

    async def _read_settings(self) -> None:
        """Go on with what the settings are by now."""
        settings = None if self._reload is None else await self._reload.run()
        if settings is not None and self._limits is not None:
            self._limits.become(transport_limits(settings))

    async def _leave(self) -> None:
        """Take leave of all clients, while those that are left are served as before."""
        self._on_stopping()
        is_replaced = self._is_replaced()
        self._draining.begin(is_replaced=is_replaced)
        if not is_replaced:  # otherwise new clients are accepted on the same sockets
            await self._draining.wait(self._delay_seconds)
        for server in self.servers:
            server.close()
        await self._draining.close_sessions()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Every client was sent a close frame. One that does not read keeps its connection, and with
        # it the process, open for ever: when the time is up it is aborted.
        timer = asyncio.get_running_loop().call_later(self._grace_seconds, self._abort_connections)
        if self._reloading is not None:
            self._reloading.cancel()
        try:
            await super().shutdown(sockets)
        finally:
            timer.cancel()

    def _abort_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # A worker leaves signals to its supervisor: a service manager may signal both of them, and
        # the second signal must not abort the clients.
        if self._is_worker:
            yield
        else:
            former = signal.signal(signal.SIGUSR2, self._refuse_replacement)
            with super().capture_signals():
                yield
            signal.signal(signal.SIGUSR2, former)

    def _refuse_replacement(self, *_: object) -> None:
        # Not in the handler: it may have interrupted the writing of another line.
        loop = asyncio.get_running_loop()
        loop.call_soon_threadsafe(lambda: NOT_REPLACEABLE.log(logger, NO_WORKERS))

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again after a clean stop and exit as if it had been killed,
        # and at a second one not shut down the application. Here that one aborts the clients.
        if self.should_exit:
            self._draining.hurry()
            asyncio.get_running_loop().call_soon_threadsafe(self._abort_connections)
        self.should_exit = True


def serve(
    app: Starlette,
    sockets: list[socket.socket],
    settings: Settings,
    *,
    on_ready: Callable[[], None],
    should_stop: Callable[[], bool],
    should_hurry: Callable[[], bool],
    is_replaced: Callable[[], bool] = lambda: False,
    on_stopping: Callable[[], None] = lambda: None,
    is_worker: bool = False,
    heartbeat: Heartbeat | None = None,
    reload: Reload | None = None,
) -> int:
    """
    Serve `app` until a signal, or until `should_stop()`; return the exit status.

    Then clients are closed a few at a time, and with `should_hurry()` all at once. `on_ready` is
    called once it accepts connections, `on_stopping` when it is to stop. One worker of several
    ignores signals. The event loop gives the `heartbeat`, and does a `reload` when that is due.
    """
    services: Services = app.state.services
    draining, limits = services.draining, transport_limits(settings)
    Server(
        uvicorn_config(app, settings, limits, is_draining=lambda: draining.has_begun),
        draining,
        on_ready=on_ready,
        should_stop=should_stop,
        # Without the task that has failed there is nothing to serve.
        should_hurry=lambda: app.state.failure is not None or should_hurry(),
        is_replaced=is_replaced,
        is_worker=is_worker,
        delay_seconds=settings.drain_delay_seconds,
        grace_seconds=settings.shutdown_seconds,
        on_stopping=on_stopping,
        heartbeat=heartbeat,
        limits=limits,
        reload=reload,
    ).run(sockets)
    return 0 if app.state.failure is None else 1


def uvicorn_config(
    app: Starlette,
    settings: Settings,
    limits: TransportLimits | None = None,
    *,
    is_draining: Callable[[], bool] = lambda: False,
) -> uvicorn.Config:
    """Return how uvicorn serves `app`: by Brain's protocol classes, within the limits."""
    limits = limits or transport_limits(settings)
    return uvicorn.Config(
        app,
        ws=websocket_protocol(limits),
        http=cast(
            type[asyncio.Protocol],
            partial(EventStreamProtocol, limits=limits, is_draining=is_draining),
        ),
        # It would take 34 KiB per connection, and compress the same message for everyone.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) + 2,
        lifespan="on",
        log_config=None,  # the command has configured it
        access_log=False,
        server_header=False,
        forwarded_allow_ips=list(settings.trusted_proxies),
    )


def transport_limits(settings: Settings) -> TransportLimits:
    return TransportLimits(
        handshake_timeout_seconds=settings.handshake_timeout_seconds,
        unread_timeout_seconds=settings.unread_timeout_seconds,
        close_seconds=settings.shutdown_seconds,
        frames_per_second=settings.messages_per_second,
        message_bytes=settings.max_message_bytes,
        ping_seconds=settings.ping_seconds,
    )
