"""The process that serves: its sockets, its log, its end."""

from __future__ import annotations

import asyncio
import errno
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain
from types import FrameType
from typing import Any, NoReturn, cast

import uvicorn
from starlette.applications import Starlette

from brain.errors import PortTaken, UsageError
from brain.settings import Settings
from brain.websocket.protocol import ConnectionLimits, HttpProtocol, WebSocketProtocol

BACKLOG = 2048
MOST_UNSENT_BYTES = 128 * 1024
# How often the system may choose a port that is free on one address and taken on the next.
CHOICES = 20

Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""What getaddrinfo finds: one address to listen on."""

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
# All workers write to the same place.
WORKERS_LOGGING: dict[str, Any] = {
    **LOGGING,
    "formatters": {
        "line": {"format": "%(asctime)s [%(process)d] %(levelname)s %(name)s: %(message)s"}
    },
}


class Server(uvicorn.Server):
    """uvicorn, that says when it is ready, lets nobody hold up its end, and exits with 0."""

    def __init__(
        self,
        config: uvicorn.Config,
        *,
        announce: Callable[[], None],
        is_pointless: Callable[[], bool],
        is_worker: bool,
        grace_seconds: float,
    ) -> None:
        super().__init__(config)
        self._announce = announce
        self._is_pointless = is_pointless
        self._is_worker = is_worker
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

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        # A worker's are its supervisor's business: whoever stops a service may signal both of them,
        # and the second signal is to hurry nobody.
        if self._is_worker:
            yield
        else:
            with super().capture_signals():
                yield

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
    is_worker: bool = False,
) -> int:
    """
    Serve `app` until a signal, or until it `is_pointless`; return the exit status.

    `announce` is called once it can be reached. One worker of several leaves signals alone.
    """
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
        log_config=WORKERS_LOGGING if is_worker else LOGGING,
        access_log=False,
        server_header=False,
    )
    Server(
        config,
        announce=announce,
        is_pointless=is_pointless,
        is_worker=is_worker,
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


def listening_sockets(
    host: str, port: int, unread_seconds: float, workers: int = 1
) -> list[list[socket.socket]]:
    """
    Bind every address of `host`, so that `localhost` is reached however a client resolves it.

    Return what each worker listens on. Raises `PortTaken`, and `UsageError` for a host that cannot
    be bound.
    """
    # No name at all is both loopback addresses, also where /etc/hosts knows localhost by one.
    name = None if host == "localhost" else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UsageError(f"cannot listen on {host!r}: {reason}") from error
    choices = 1 if port else CHOICES
    while True:
        choices -= 1
        try:
            return bound_everywhere(list(dict.fromkeys(found)), unread_seconds, workers)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(f"cannot listen on {host}:{port}: {error.strerror}") from error
            if choices == 0:
                raise PortTaken(
                    f"port {port} is taken: stop what listens there, or choose another --port"
                ) from error


def bound_everywhere(
    found: list[Found], unread_seconds: float, workers: int
) -> list[list[socket.socket]]:
    """Return a socket on each address for each worker, all with the same port."""
    sockets: list[list[socket.socket]] = []
    for family, _, _, _, address in found:
        # With port 0 the system chooses once, for all addresses.
        chosen = sockets[0][0].getsockname()[1] if sockets else address[1]
        try:
            sockets.append(
                bound_for_all(workers, family, (address[0], chosen, *address[2:]), unread_seconds)
            )
        except OSError as error:
            # A machine without IPv6 may still resolve names to it.
            is_missing = family == socket.AF_INET6 and error.errno != errno.EADDRINUSE
            if not is_missing or (not sockets and address == found[-1][4]):
                for listener in chain(*sockets):
                    listener.close()
                raise
    return [list(own) for own in zip(*sockets, strict=True)]


def bound_for_all(
    workers: int, family: socket.AddressFamily, address: tuple[Any, ...], unread_seconds: float
) -> list[socket.socket]:
    """
    Return a socket for each worker, all on the same address.

    Linux spreads connections over them by a hash of the client's address. On a socket that workers
    share, whoever wakes first accepts all there is. Elsewhere sharing is all there is.
    """
    alone = bound(family, address, unread_seconds)
    if workers == 1 or sys.platform != "linux":
        return [alone] * workers
    # Alone first: an address that another process shares would not look taken.
    address = alone.getsockname()
    alone.close()
    return [bound(family, address, unread_seconds, is_shared=True) for _ in range(workers)]


def bound(
    family: socket.AddressFamily,
    address: tuple[Any, ...],
    unread_seconds: float,
    *,
    is_shared: bool = False,
) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
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
