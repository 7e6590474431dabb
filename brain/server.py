"""The process that serves: its sockets, its log, its end."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from types import FrameType
from typing import Any, NoReturn, cast

import uvicorn
from starlette.applications import Starlette

from brain.errors import PortTaken, UsageError
from brain.settings import Settings
from brain.websocket.protocol import (
    ConnectionLimits,
    HttpProtocol,
    WebSocketProtocol,
    require_uvicorn,
)

BACKLOG = 2048
MOST_UNSENT_BYTES = 128 * 1024

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "%(asctime)s %(levelname)s %(name)s: %(message)s"}},
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "brain": {"level": "INFO"},
        # At INFO it logs the address of every WebSocket, and with it what stands in the query.
        "uvicorn": {"level": "WARNING"},
    },
    "root": {"level": "WARNING", "handlers": ["stderr"]},
}


class Server(uvicorn.Server):
    """uvicorn, that says when it is ready, lets nobody hold up its end, and exits with 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        announce: Callable[[], None],
        is_pointless: Callable[[], bool],
        grace_seconds: float,
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._is_pointless = is_pointless
        self._grace_seconds = grace_seconds

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and not self.should_exit:
            self._announce()

    async def on_tick(self, counter: int) -> bool:
        # uvicorn asks ten times a second whether it is to stop.
        return await super().on_tick(counter) or self._is_pointless()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Every client is sent close code 1012. One that does not read keeps its connection, and
        # with it the process, open for ever: when the time is up it is cut off.
        cut = asyncio.get_running_loop().call_later(self._grace_seconds, self._cut_connections)
        try:
            await super().shutdown(sockets)
        finally:
            cut.cancel()

    def _cut_connections(self) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # uvicorn would raise the signal again after a clean stop and exit as if it had been killed,
        # and at a second one leave the application standing. Here that one hurries the clients.
        if self.should_exit:
            asyncio.get_running_loop().call_soon_threadsafe(self._cut_connections)
        self.should_exit = True


def serve(
    app: Starlette,
    sockets: list[socket.socket],
    settings: Settings,
    *,
    announce: Callable[[], None],
    is_pointless: Callable[[], bool],
) -> int:
    """
    Serve `app` until a signal, or until it `is_pointless`; return the exit status.

    `announce` is called once it can be reached.
    """
    require_uvicorn()
    limits = ConnectionLimits(
        handshake_seconds=settings.handshake_seconds,
        unread_seconds=settings.unread_seconds,
        close_seconds=settings.shutdown_seconds,
        frames_per_second=settings.messages_per_second,
    )
    config = uvicorn.Config(
        app,
        ws=cast(type[asyncio.Protocol], partial(WebSocketProtocol, limits=limits)),
        http=cast(type[asyncio.Protocol], partial(HttpProtocol, limits=limits)),
        ws_max_size=settings.max_message_bytes,
        ws_ping_interval=settings.ping_seconds,
        ws_ping_timeout=settings.ping_seconds,
        # 24 KiB per connection instead of 58, and no compressing the same message for everyone.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(settings.shutdown_seconds) + 2,
        lifespan="on",
        log_config=LOGGING,
        access_log=False,
        server_header=False,
    )
    Server(
        config,
        announce=announce,
        is_pointless=is_pointless,
        grace_seconds=settings.shutdown_seconds,
    ).run(sockets)
    return 0 if app.state.failure is None else 1


def end_on_signals() -> None:
    """
    From now on leave all contexts on a signal, wherever it comes while no server handles it.

    A second one does not disturb the leaving.
    """

    def leave(number: int, _: object) -> NoReturn:
        ignore_signals()
        sys.exit(128 + number)

    def hang_up(*_: object) -> None:
        # The terminal was closed. Whoever handles SIGTERM at that moment knows what to do.
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, leave)
    signal.signal(signal.SIGTERM, leave)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, hang_up)


def ignore_signals() -> None:
    """From now on end in order, and not at once: it takes a bounded time."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def listening_sockets(host: str, port: int, unread_seconds: float) -> list[socket.socket]:
    """
    Bind every address of `host`, so that `localhost` is reached however a client resolves it.

    Raises `PortTaken`, and `UsageError` for a host that cannot be bound.
    """
    # No name at all is both loopback addresses, also where /etc/hosts knows localhost by one.
    name = None if host == "localhost" else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UsageError(f"cannot listen on {host!r}: {reason}") from error
    sockets: list[socket.socket] = []
    for family, _, _, _, address in dict.fromkeys(found):
        # With port 0 the system chooses once, for all addresses.
        chosen = sockets[0].getsockname()[1] if sockets else port
        try:
            sockets.append(bound(family, (address[0], chosen, *address[2:]), unread_seconds))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTaken(
                    f"port {chosen} is taken: stop what listens there, or choose another --port"
                ) from error
            # A machine without IPv6 may still resolve names to it.
            if family != socket.AF_INET6 or (not sockets and address == found[-1][4]):
                raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return sockets


def bound(
    family: socket.AddressFamily, address: tuple[Any, ...], unread_seconds: float
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if sys.platform == "linux":
            # Accepted connections inherit it: a client that stops reading is cut by the kernel,
            # which uvicorn does not do.
            listener.setsockopt(
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_seconds * 1000)
            )
            # And what is unread waits in the ring, once for everybody, and not in megabytes of the
            # kernel for each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
