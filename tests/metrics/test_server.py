"""The port of the metrics."""

from __future__ import annotations

import os
import resource
import socket
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack

import pytest
from prometheus_client import CollectorRegistry, Counter

from brain.metrics.exposition import Exposition
from brain.metrics.server import MOST_REQUESTS, serving_metrics
from brain.process.sockets import listening_sockets


@pytest.fixture
def port() -> Iterator[int]:
    registry = CollectorRegistry()
    Counter("brain_things_total", "Things.", registry=registry).inc(7)
    (listeners,) = listening_sockets("127.0.0.1", 0, 60)
    with serving_metrics(listeners, Exposition(registry)):
        yield listeners[0].getsockname()[1]


def fetched(port: int, accept: str = "*/*") -> tuple[str, str]:
    """Return the media type and the text; it blocks, and with it the event loop."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/metrics", headers={"accept": accept})
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request) as response:
        return response.headers["content-type"], response.read().decode()


async def test_it_answers_while_the_event_loop_is_blocked(port: int) -> None:
    media_type, text = fetched(port)
    assert media_type.startswith("text/plain; version=")
    assert text == "# HELP brain_things_total Things.\n# TYPE brain_things_total counter\n" + (
        "brain_things_total 7.0\n"
    )


def test_openmetrics_is_there_for_those_that_ask_for_it(port: int) -> None:
    media_type, text = fetched(port, "application/openmetrics-text; version=1.0.0")
    assert media_type.startswith("application/openmetrics-text; version=1.0.0")
    assert text.endswith("# EOF\n")
    assert "_created" not in text


def test_a_connection_is_closed_after_its_answer(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: brain\r\n\r\n")
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    assert answer.startswith(b"HTTP/1.0 200 OK\r\nServer: brain\r\n")


def test_it_answers_when_no_more_files_can_be_opened(port: int) -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.settimeout(30)
        highest = os.dup(0)
        os.close(highest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (highest, most))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert client.recv(12) == b"HTTP/1.0 200"
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_clients_that_send_nothing_keep_no_more_than_a_few_threads(port: int) -> None:
    with ExitStack() as stack:
        silent = [
            stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
            for _ in range(MOST_REQUESTS)
        ]
        refused = stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=30))
        assert refused.recv(1) == b""
        silent[0].sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        assert silent[0].recv(12) == b"HTTP/1.0 200"
