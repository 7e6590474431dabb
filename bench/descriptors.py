"""How many sockets a process may have open."""

from __future__ import annotations

import resource
from collections.abc import Iterable

# Descriptors that a process needs beside those of its clients.
SPARE_DESCRIPTORS = 100


def raise_descriptor_limit() -> int:
    """Let this process, and those that it starts, open as many files as may be; return how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fitting(wanted: Iterable[int]) -> list[int]:
    """Return the numbers of clients that one process may have, larger ones cut down to fit."""
    most = raise_descriptor_limit() - SPARE_DESCRIPTORS
    return list(dict.fromkeys(min(clients, most) for clients in wanted))
