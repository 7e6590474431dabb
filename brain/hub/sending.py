"""How a client is sent to whose transport holds nothing back."""

from __future__ import annotations

from collections.abc import Callable


def send(frames: bytes, send_now: Callable[[bytes], int], write: Callable[[bytes], object]) -> None:
    """Send what can be sent at once, and write the rest."""
    try:
        sent = send_now(frames)
    except OSError:
        sent = 0
    if sent < len(frames):
        write(frames[sent:])
