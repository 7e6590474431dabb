"""Where the hub's frames for one client go: the outgoing half of a transport."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol


class Outgoing(Protocol):
    """Two callables, so that a fan-out calls them without a method between."""

    @property
    def send_now(self) -> Callable[[bytes], int]:
        """
        Sends as many bytes of finished frames as can be sent at once, and returns how many.

        Only to be called while writing is not paused; the rest is for `write`. An `OSError` means
        that it takes none.
        """
        ...

    @property
    def write(self) -> Callable[[bytes], object]:
        """Sends all of the frames; buffers what does not fit, and then pauses writing."""
        ...


def send(frames: bytes, send_now: Callable[[bytes], int], write: Callable[[bytes], object]) -> None:
    """Send what can be sent at once, and write the rest."""
    try:
        sent = send_now(frames)
    except OSError:
        sent = 0
    if sent < len(frames):
        write(frames[sent:])
