"""What signals mean to a process."""

from __future__ import annotations

import resource

from brain.process.signals import has_terminal


def test_with_too_many_open_files_a_terminal_counts_as_not_closed() -> None:
    """Otherwise a SIGHUP would end a Brain that is short of them."""
    former = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, former[1]))
    try:
        found = has_terminal()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, former)
    assert found
