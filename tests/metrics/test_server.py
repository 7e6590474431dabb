"""The port of the metrics."""

from __future__ import annotations

import os
import resource
import socket
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, Counter

from brain.metrics.exposition import Exposition
from brain.metrics.files import FilesCollector
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
        client.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n")
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
            while client.recv(65536):
                pass
            deadline = time.monotonic() + 30
            while any("process_request" in thread.name for thread in threading.enumerate()):
                assert time.monotonic() < deadline
                time.sleep(0.01)
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)  # those that it had for the answer are held for the next one
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_client_waits_while_others_have_taken_all_files_and_the_processor_rests(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests, sleep = threading.Event(), time.sleep

    def note_and_sleep(seconds: float) -> None:
        rests.set()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", note_and_sleep)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with socket.socket() as client:
        client.settimeout(30)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, before[1]))  # 0, 1 and 2 are open
        try:
            client.connect(("127.0.0.1", port))
            client.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            assert rests.wait(30)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert client.recv(12) == b"HTTP/1.0 200"


def test_metrics_that_cannot_be_read_are_503(tmp_path: Path) -> None:
    (listeners,) = listening_sockets("127.0.0.1", 0, 60)
    with serving_metrics(listeners, Exposition(FilesCollector(tmp_path / "missing"))):
        assert status(listeners[0].getsockname()[1], "127.0.0.1") == 503


def test_requests_for_which_no_thread_can_be_started_leave_room_for_others(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", fail)
        for _ in range(MOST_REQUESTS + 1):
            with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
                assert client.recv(1) == b""
    assert status(port, "127.0.0.1") == 200


def status(port: int, *hosts: str) -> int:
    """Return the status of an answer to a request with these headers `Host`."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as client:
        headers = "".join(f"Host: {host}\r\n" for host in hosts)
        client.sendall(f"GET /metrics HTTP/1.1\r\n{headers}\r\n".encode())
        answer = b""
        while piece := client.recv(65536):
            answer += piece
    return int(answer.split()[1])


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        (["localhost:9521"], 200),
        (["LOCALHOST."], 200),
        (["127.0.0.1:9521"], 200),
        (["[::1]:9521"], 200),
        (["10.0.0.9"], 200),  # through a port that is forwarded
        ([], 200),
        (["rebound.example:9521"], 403),
        (["localhost.rebound.example"], 403),
        (["localhost", "rebound.example"], 403),
        ([""], 403),
    ],
)
def test_on_loopback_a_name_that_resolves_to_this_machine_is_refused(
    port: int, hosts: list[str], expected: int
) -> None:
    assert status(port, *hosts) == expected


def test_on_an_address_for_others_it_goes_by_any_name() -> None:
    (listeners,) = listening_sockets("0.0.0.0", 0, 60)
    with serving_metrics(listeners, Exposition(CollectorRegistry())):
        assert status(listeners[0].getsockname()[1], "brain.example.org") == 200


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
