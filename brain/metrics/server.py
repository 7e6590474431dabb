"""Serves `/metrics` on a port of its own."""

from __future__ import annotations

import errno
import os
import socket
import socketserver
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from brain.metrics.exposition import Exposition

PATH = "/metrics"
# How long a client may be silent, and how many there may be at a time.
SILENCE_SECONDS = 5.0
MOST_REQUESTS = 8
# For a connection, and what is read for its answer.
RESERVED_FILES = 3
POLL_SECONDS = 0.2


class ReservedFiles:
    """
    Open files that are given up when no more may be opened, so that the metrics can say so.

    To be used by one thread at a time.
    """

    def __init__(self) -> None:
        self._held: list[int] = []
        self.hold()

    def hold(self) -> None:
        """Open those that were given up, as far as that is possible again."""
        with suppress(OSError):
            while len(self._held) < RESERVED_FILES:
                self._held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))

    def give_up(self) -> None:
        while self._held:
            os.close(self._held.pop())


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
        page = self.server.exposition.page(self.headers.get("Accept", ""))
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
        self._free = threading.BoundedSemaphore(MOST_REQUESTS)
        self._reserved = ReservedFiles()

    def get_request(self) -> tuple[socket.socket, Any]:
        self._reserved.hold()
        try:
            return super().get_request()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            self._reserved.give_up()
            return super().get_request()

    def server_close(self) -> None:
        super().server_close()
        self._reserved.give_up()

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a client go that has broken off."""


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
