"""Signals while no server handles them."""

from __future__ import annotations

import faulthandler
import signal
import sys
from typing import NoReturn


def end_on_signals() -> None:
    """
    Exit on a signal by leaving all contexts, as long as no server handles signals.

    A second signal does not interrupt that.
    """

    def exit_with(number: int, _: object) -> NoReturn:
        ignore_signals()
        sys.exit(128 + number)

    def hang_up(*_: object) -> None:
        # The terminal was closed: the same as SIGTERM, whatever handles that at the moment.
        signal.raise_signal(signal.SIGTERM)

    signal.signal(signal.SIGINT, exit_with)
    signal.signal(signal.SIGTERM, exit_with)
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as `nohup` has it
        signal.signal(signal.SIGHUP, hang_up)


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
