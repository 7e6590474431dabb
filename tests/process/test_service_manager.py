from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import pytest

from brain.process.service_manager import ServiceManager

PATIENCE_SECONDS = 30.0


@contextmanager
def listening(address: str) -> Iterator[socket.socket]:
    """Listen as a service manager does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(PATIENCE_SECONDS)
        yield manager


def received(manager: socket.socket) -> list[str]:
    return manager.recv(4096).decode().split("\n")


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


def test_the_service_manager_hears_each_state(address: str) -> None:
    with listening(address) as manager:
        service = ServiceManager.from_environment({"NOTIFY_SOCKET": address})

        service.ready()
        assert received(manager)[0] == "READY=1"
        service.reloading()
        reloading, since, _ = received(manager)
        assert reloading == "RELOADING=1"
        assert since.removeprefix("MONOTONIC_USEC=").isdecimal()
        service.stopping(1.5)
        assert received(manager)[:2] == ["STOPPING=1", "EXTEND_TIMEOUT_USEC=1500000"]


def test_the_socket_of_the_service_manager_may_be_abstract() -> None:
    name = f"brain-{uuid4()}"
    with listening(f"\0{name}") as manager:
        ServiceManager.from_environment({"NOTIFY_SOCKET": f"@{name}"}).ready()

        assert received(manager)[0] == "READY=1"


async def test_the_watchdog_hears_the_event_loop_twice_per_timeout(address: str) -> None:
    environment = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}
    with listening(address) as manager:
        heartbeat = ServiceManager.from_environment(environment).heartbeat
        assert heartbeat is not None
        assert heartbeat.seconds == 0.01

        beating = asyncio.create_task(heartbeat.run())
        for _ in range(3):
            assert await asyncio.to_thread(received, manager) == ["WATCHDOG=1"]
        beating.cancel()
        await asyncio.wait([beating])


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"WATCHDOG_USEC": "1000"},
        {"NOTIFY_SOCKET": "@brain"},
        {"NOTIFY_SOCKET": "@brain", "WATCHDOG_USEC": "0"},
        {"NOTIFY_SOCKET": "@brain", "WATCHDOG_USEC": "soon"},
        {"NOTIFY_SOCKET": "@brain", "WATCHDOG_USEC": "1000", "WATCHDOG_PID": "1"},
    ],
)
def test_without_a_watchdog_for_this_process_there_is_no_heartbeat(
    environment: dict[str, str],
) -> None:
    assert ServiceManager.from_environment(environment).heartbeat is None


def test_a_watchdog_for_this_process_has_a_heartbeat() -> None:
    environment = {
        "NOTIFY_SOCKET": "@brain",
        "WATCHDOG_USEC": "1000",
        "WATCHDOG_PID": str(os.getpid()),
    }
    assert ServiceManager.from_environment(environment).heartbeat is not None


def test_a_process_that_brain_starts_does_not_report_in_its_place() -> None:
    environment = {"NOTIFY_SOCKET": "@brain", "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1", "A": "B"}

    ServiceManager.from_environment(environment)

    assert environment == {"A": "B"}


def test_a_service_manager_that_has_gone_is_logged_once(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    service = ServiceManager.from_environment({"NOTIFY_SOCKET": address})

    service.ready()
    service.beat()

    (line,) = caplog.messages
    assert line.startswith("cannot report to the service manager: No such file or directory")
