"""
Reports to the service manager that has started Brain, as `Type=notify` of systemd has it.

The protocol is that of sd_notify(3): a datagram to the socket that the environment names.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping
from typing import Self

from brain.log_events import SERVICE_MANAGER_UNREACHABLE
from brain.process.heartbeat import Heartbeat

# How long a message may wait for a service manager that is busy.
SEND_SECONDS = 1.0
MICROSECONDS = 1_000_000

logger = logging.getLogger(__name__)


class ServiceManager:
    """Reports to systemd when Brain is ready, reloads, stops, and that it does not hang."""

    def __init__(self, address: str | None, watchdog_seconds: float | None = None) -> None:
        """
        `address` is a path, or begins with `@`, which stands for an abstract socket; None: no
        service manager asks. `watchdog_seconds`: after how long without a report it ends this
        process.
        """
        self._address = None if address is None else address.replace("@", "\0", 1)
        self._watchdog_seconds = watchdog_seconds
        self._has_failed = False

    @classmethod
    def from_environment(cls, environment: MutableMapping[str, str]) -> Self:
        """
        Return the service manager that the environment names.

        It takes the variables away: no process that Brain starts may report in its place.
        """
        address = environment.pop("NOTIFY_SOCKET", None) or None
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process_id = environment.pop("WATCHDOG_PID", "") or str(os.getpid())
        if not microseconds.isdecimal() or process_id != str(os.getpid()):
            return cls(address)
        return cls(address, int(microseconds) / MICROSECONDS or None)

    @property
    def heartbeat(self) -> Heartbeat | None:
        """What its watchdog waits for; None if it has none."""
        if self._address is None or self._watchdog_seconds is None:
            return None
        return Heartbeat(self._watchdog_seconds / 2, self.beat)

    def ready(self) -> None:
        """Report that clients are served, or are served again after a reload."""
        self._send("READY=1", "STATUS=serving")

    def reloading(self) -> None:
        """Report that settings are read again; `ready` ends it."""
        now = time.monotonic_ns() // 1000
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reading the settings again")

    def stopping(self, seconds: float) -> None:
        """Report that Brain stops, and may take so long."""
        self._send(
            "STOPPING=1",
            f"EXTEND_TIMEOUT_USEC={round(seconds * MICROSECONDS)}",
            "STATUS=draining",
        )

    def beat(self) -> None:
        """Report that this process does not hang."""
        self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.settimeout(SEND_SECONDS)
                sender.sendto("\n".join(assignments).encode(), self._address)
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        # The watchdog would have the same line logged again and again.
        if not self._has_failed:
            self._has_failed = True
            reason = error.strerror or str(error)
            text = "cannot report to the service manager: %s (NOTIFY_SOCKET)"
            SERVICE_MANAGER_UNREACHABLE.log(logger, text, reason)
