"""What a service manager hears of this process: sd_notify(3) of systemd, without its library."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import MutableMapping

MICROSECONDS = 1_000_000

logger = logging.getLogger(__name__)


class ServiceManager:
    """
    Tells a service manager that this process is ready, and that it is alive.

    Without one, nothing is sent.
    """

    def __init__(self, address: str, watchdog_seconds: float | None = None) -> None:
        """
        `address` is that of a datagram socket, or empty; `@` begins one in the abstract namespace.

        A process that sends no sign of life for `watchdog_seconds` is killed by the manager.
        """
        self._address = address
        self._interval_seconds = None if watchdog_seconds is None else watchdog_seconds / 3
        self._next_at = 0.0

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> ServiceManager:
        """
        Return the one that the environment names, and remove its variables.

        They are for this process alone: a child, such as a PostgreSQL, would report for it.
        """
        address = environment.pop("NOTIFY_SOCKET", "")
        microseconds = environment.pop("WATCHDOG_USEC", "")
        process_id = environment.pop("WATCHDOG_PID", "")
        is_watched = microseconds.isdecimal() and process_id in ("", str(os.getpid()))
        return cls(address, int(microseconds) / MICROSECONDS if is_watched else None)

    def ready(self) -> None:
        """Report that clients can connect: what waits for this service may start."""
        self._send("READY=1")

    def alive(self) -> None:
        """
        Report that this process is alive, if a third of the time for that is over.

        To be called many times a second, from the loop whose standstill should end the process.
        """
        if self._interval_seconds is not None and time.monotonic() >= self._next_at:
            self._next_at = time.monotonic() + self._interval_seconds
            self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """Report that this process is about to end; from now on no sign of life is expected."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address[0] == "@" else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                sender.setblocking(False)
                sender.sendto(message.encode(), address)
        except OSError as error:
            # A full queue of the manager's is no reason to end; what it misses, it will say.
            logger.debug("%s cannot be sent to the service manager: %s", message, error)
