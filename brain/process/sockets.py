"""The sockets that Brain listens on."""

from __future__ import annotations

import errno
import socket
import sys
from itertools import chain
from typing import Any

from brain.errors import PortTaken, UsageError

BACKLOG = 2048
MOST_UNSENT_BYTES = 128 * 1024
# How often the system may choose a port that is free on one address and taken on the next.
CHOICES = 20

Found = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[Any, ...]]
"""A result of getaddrinfo: one address to listen on."""


def listening_sockets(
    host: str,
    port: int,
    unread_timeout_seconds: float,
    workers: int = 1,
    variables: tuple[str, str] = ("BRAIN_HOST", "BRAIN_PORT"),
) -> list[list[socket.socket]]:
    """
    Bind every address of `host`: `localhost` works however a client resolves it.

    Return the sockets of each worker; `variables` are where host and port come from.

    Raises `PortTaken`, and `UsageError` for a host that cannot be bound.
    """
    # None is both loopback addresses, also where /etc/hosts has one address for localhost.
    name = None if host == "localhost" else host
    try:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a host name"
        raise UsageError(f"cannot listen on {host!r}: {reason} ({variables[0]})") from error
    choices = 1 if port else CHOICES
    option = "--port" if variables[1] == "BRAIN_PORT" else variables[1]
    while True:
        choices -= 1
        try:
            return bound_everywhere(list(dict.fromkeys(found)), unread_timeout_seconds, workers)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise UsageError(
                    f"cannot listen on {host}:{port}: {error.strerror} ({', '.join(variables)})"
                ) from error
            if choices == 0:
                raise PortTaken(
                    f"port {port} is taken: stop what listens there, or choose another {option}"
                ) from error


def bound_everywhere(
    found: list[Found], unread_timeout_seconds: float, workers: int
) -> list[list[socket.socket]]:
    """Return a socket on each address for each worker, all with the same port."""
    sockets: list[list[socket.socket]] = []
    for family, _, _, _, address in found:
        # With port 0 the system chooses once, for all addresses.
        chosen = sockets[0][0].getsockname()[1] if sockets else address[1]
        try:
            sockets.append(
                bound_for_all(
                    workers, family, (address[0], chosen, *address[2:]), unread_timeout_seconds
                )
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
    workers: int,
    family: socket.AddressFamily,
    address: tuple[Any, ...],
    unread_timeout_seconds: float,
) -> list[socket.socket]:
    """
    Return a socket for each worker, all on the same address.

    Linux spreads connections over them by a hash of the client's address. Of workers that share a
    socket, the first to wake accepts all connections; other systems offer no more than that.
    """
    alone = bound(family, address, unread_timeout_seconds)
    if workers == 1 or sys.platform != "linux":
        return [alone] * workers
    # Exclusively first: an address that another process shares would not look taken.
    address = alone.getsockname()
    alone.close()
    return [bound(family, address, unread_timeout_seconds, is_shared=True) for _ in range(workers)]


def bound(
    family: socket.AddressFamily,
    address: tuple[Any, ...],
    unread_timeout_seconds: float,
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
                socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(unread_timeout_seconds * 1000)
            )
            # And what is unread waits in the ring, once for all clients, instead of in megabytes of
            # kernel buffers for each.
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MOST_UNSENT_BYTES)
        listener.bind(address)
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener
