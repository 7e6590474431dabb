"""The limit of open file descriptors, and hence of clients, of a process."""

from __future__ import annotations

import resource
from collections.abc import Iterable

# Descriptors that a process needs besides those of its clients.
SPARE_DESCRIPTORS = 100


def raise_descriptor_limit() -> int:
    """Raise the limit of open files to the hard limit, also for child processes; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def fitting(wanted: Iterable[int]) -> list[int]:
    """Return the wanted numbers of clients, capped at what one process can open."""
    most = raise_descriptor_limit() - SPARE_DESCRIPTORS
    return list(dict.fromkeys(min(clients, most) for clients in wanted))
