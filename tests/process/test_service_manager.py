from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from brain.process.service_manager import ServiceManager

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")


@pytest.fixture(params=["path", "abstract"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "path":
        return str(tmp_path / "notify")
    return f"@brain-{os.getpid()}-{tmp_path.name}"


@pytest.fixture
def manager_socket(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + address[1:] if address.startswith("@") else address)
        listener.settimeout(10)
        yield listener


def test_it_is_told_when_clients_can_connect_and_when_the_process_ends(
    address: str, manager_socket: socket.socket
) -> None:
    environment = {"NOTIFY_SOCKET": address, "PATH": "/bin"}
    manager = ServiceManager.of(environment)
    manager.ready()
    manager.alive()
    manager.stopping()
    assert [manager_socket.recv(100) for _ in range(2)] == [b"READY=1", b"STOPPING=1"]
    assert environment == {"PATH": "/bin"}


def test_signs_of_life_come_three_times_as_often_as_they_must(
    address: str, manager_socket: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    manager = ServiceManager.of(environment)
    received = []
    for now in range(1000, 1030):
        manager.alive()
        manager_socket.setblocking(False)
        try:
            received.append((now, manager_socket.recv(100)))
        except BlockingIOError:
            pass
    assert received == [(1000, b"WATCHDOG=1"), (1010, b"WATCHDOG=1"), (1020, b"WATCHDOG=1")]


@pytest.mark.parametrize("process_id", ["1", "nonsense"])
def test_a_watchdog_of_another_process_gets_no_sign_of_life(
    address: str, manager_socket: socket.socket, process_id: str
) -> None:
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": process_id,
    }
    manager = ServiceManager.of(environment)
    manager.alive()
    manager.stopping()
    assert manager_socket.recv(100) == b"STOPPING=1"


@pytest.mark.parametrize("address_of_nobody", ["", "/nowhere/notify"])
def test_without_a_manager_that_listens_nothing_fails(address_of_nobody: str) -> None:
    manager = ServiceManager.of({"NOTIFY_SOCKET": address_of_nobody, "WATCHDOG_USEC": "1"})
    manager.ready()
    manager.alive()
    manager.stopping()
