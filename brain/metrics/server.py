"""Serves `/metrics` on a port of its own."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from ipaddress import ip_address
from typing import Any

from brain.metrics.exposition import Exposition
from brain.settings import host_name, is_loopback_name

PATH = "/metrics"
# How long a client may be silent, and how many there may be at a time.
SILENCE_SECONDS = 5.0
MOST_REQUESTS = 8
# For a connection, and what is read for its answer.
RESERVED_FILES = 3
NO_MORE_FILES = (errno.EMFILE, errno.ENFILE)
POLL_SECONDS = 0.2


class ReservedFiles:
    """Open files that are given up when no more may be opened, so that the metrics can say so."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._held: list[int] = []
        self._is_closed = False
        self.hold()

    def hold(self) -> None:
        """Open those that were given up, as far as that is possible again."""
        with self._lock, suppress(OSError):
            while len(self._held) < RESERVED_FILES and not self._is_closed:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def give_up(self) -> None:
        with self._lock:
            while self._held:
                os.close(self._held.pop())

    def close(self) -> None:
        """Give them up for good: a request may still be answered."""
        self._is_closed = True
        self.give_up()


class Handler(BaseHTTPRequestHandler):
    """
    Answers one request, and closes the connection: the next one may go to another worker.

    So one that hangs is not asked again and again.
    """

    server: MetricsServer
    timeout = SILENCE_SECONDS

    def do_GET(self) -> None:
        if self.path.partition("?")[0] != PATH:
            self.send_error(404)
            return
        if not self.server.is_addressed_by(self.headers.get_all("Host", [])):
            self.send_error(403, explain="On loopback, Host is to be localhost or an address.")
            return
        try:
            page = self.server.exposition.page(self.headers.get("Accept", ""))
        except OSError as error:
            self.send_error(503, explain=f"The metrics cannot be read: {error.strerror}.")
            return
        self.send_response(200)
        self.send_header("Content-Type", page.media_type)
        self.send_header("Content-Length", str(len(page.content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(page.content)

    do_HEAD = do_GET

    def version_string(self) -> str:
        return "brain"

    def log_message(self, format: str, *args: Any) -> None:
        """Log no requests."""


class MetricsServer(socketserver.ThreadingMixIn, HTTPServer):
    """
    Serves over a socket that listens already, in threads.

    They answer also while the event loop hangs. Several processes may share the socket: whichever
    accepts a connection answers for all.
    """

    daemon_threads = True
    block_on_close = False

    def __init__(self, listener: socket.socket, exposition: Exposition) -> None:
        super().__init__(("", 0), Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.exposition = exposition
        self._is_on_loopback = is_loopback_name(host_of(listener))
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        self._reserved = ReservedFiles()

    def is_addressed_by(self, hosts: Sequence[str]) -> bool:
        """
        Return False for a name that is made to resolve to this machine: a page of it must not read.

        `hosts` are the headers `Host`, which every browser sends.
        """
        return not self._is_on_loopback or all(map(is_localhost_or_address, hosts))

    def get_request(self) -> tuple[socket.socket, Any]:
        self._reserved.hold()
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in NO_MORE_FILES:
                raise
        self._reserved.give_up()
        try:
            return super().get_request()
        except OSError as error:
            if error.errno in NO_MORE_FILES:  # others have taken them, and the client still waits
                time.sleep(POLL_SECONDS)
            raise

    def server_close(self) -> None:
        super().server_close()
        self._reserved.close()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # no thread could be started
            self._free.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            # At once: others wait for files, too.
            self._reserved.hold()
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client go that has broken off."""


def host_of(listener: socket.socket) -> str:
    host: str = listener.getsockname()[0]
    return host


def is_localhost_or_address(host: str) -> bool:
    name = host_name(host) or ""
    with suppress(ValueError):
        ip_address(name)
        return True
    return name == "localhost"


@contextmanager
def serving_metrics(listeners: Sequence[socket.socket], exposition: Exposition) -> Iterator[None]:
    """Serve metrics on these sockets until the context ends, and close them then."""
    servers = [MetricsServer(listener, exposition) for listener in listeners]
    for server in servers:
        threading.Thread(
            target=server.serve_forever, args=[POLL_SECONDS], name="metrics", daemon=True
        ).start()
    try:
        yield
    finally:
        for server in servers:
            server.shutdown()
            server.server_close()
