"""How many sessions there are, and how they have ended."""

from __future__ import annotations

from collections import Counter

# RFC 6455, section 7.4.1: what no close frame has, for connections that end without one, or
# without a code in it.
NO_CODE = 1005
ABNORMAL = 1006


class SessionCounts:
    """Counts the sessions of a process: plain numbers, which only grow but for `open`."""

    def __init__(self) -> None:
        self.open: Counter[tuple[str, str]] = Counter()
        """By wire format and framing."""
        self.opened: Counter[tuple[str, str]] = Counter()
        self.closed: Counter[int] = Counter()
        """By close code, also of streams, and of those that ended without one: `ABNORMAL`."""

    def begin(self, wire_format: str, framing: str) -> None:
        self.open[wire_format, framing] += 1
        self.opened[wire_format, framing] += 1

    def end(self, wire_format: str, framing: str, code: int) -> None:
        self.open[wire_format, framing] -= 1
        self.closed[code] += 1
