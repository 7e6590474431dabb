"""Signals while no server handles them."""

from __future__ import annotations

import errno
import faulthandler
import os
import signal
import sys
import time
from typing import NoReturn

# How long after SIGHUP a terminal may still be there that is about to be closed.
EXIT_SECONDS = 0.5
# Why /dev/tty cannot be opened where there is none: the last two where there are no devices.
NO_TERMINAL = (errno.ENXIO, errno.EIO, errno.ENOTTY, errno.ENOENT, errno.ENODEV)


def end_on_signals() -> None:
    """
    Exit on a signal by leaving all contexts, as long as no server handles signals.

    A second signal does not interrupt that. SIGUSR2, which asks for other workers, is ignored until
    there are any.
    """

    def exit_with(number: int, _: object) -> NoReturn:
        ignore_signals()
        sys.exit(128 + number)

    def hang_up(*_: object) -> None:
        # The terminal was closed: the same as SIGTERM, whatever handles that at the moment.
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, exit_with)
    signal.signal(signal.SIGTERM, exit_with)
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, hang_up)


class HangUps:
    """
    What SIGHUP means to a server: read the settings again, unless its terminal was closed.

    A service manager sends it for the former, the kernel or a shell for the latter. A process that
    ignores it at its start, as by `nohup`, is to survive its terminal, and one without a terminal
    has none to lose.
    """

    def __init__(self) -> None:
        """From now on handle SIGHUP."""
        is_ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        self._had_terminal = not is_ignored and has_terminal()
        self._noted_at: float | None = None
        signal.signal(signal.SIGHUP, self._note)

    def take(self) -> bool:
        """Return True if the settings are to be read again; to be called many times a second."""
        if self._noted_at is None:
            return False
        if self._had_terminal:
            # A shell that exits signals its jobs a moment before the terminal is closed.
            if not has_terminal():
                self._end()
                return False
            if time.monotonic() < self._noted_at + EXIT_SECONDS:
                return False
        self._noted_at = None
        return True

    def _note(self, *_: object) -> None:
        self._noted_at = time.monotonic()
        if self._had_terminal and not has_terminal():
            self._end()

    def _end(self) -> None:
        self._noted_at = None
        signal.raise_signal(signal.SIGTERM)


def has_terminal() -> bool:
    """
    Return True if this process has a controlling terminal, which was not closed.

    It may be impossible to find out, as with too many open files: then one counts as not closed.
    """
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError as error:
        return error.errno not in NO_TERMINAL
    return True


def ignore_signals() -> None:
    """Finish the shutdown, which takes a bounded time, whatever signals come."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def dump_stacks_on_signals() -> None:
    """
    Print the stacks of all threads at a crash, at SIGABRT, and at SIGUSR1, which ends nothing.

    A supervisor and systemd end a process that hangs by SIGABRT.
    """
    stderr = 2
    faulthandler.enable(stderr)
    faulthandler.register(signal.SIGUSR1, stderr)
