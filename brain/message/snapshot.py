"""Tables as they are at one place in the log."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from brain.message.cursor import Cursor

# Rendering a part must not hold up the event loop, and many clients refuse large messages.
PART_ROWS = 500
PART_CHARACTERS = 32 * 1024

# How long a client may take to read a snapshot: a minute, and as long as at 1 Mbit/s.
READ_SECONDS = 60.0
LEAST_BYTES_PER_SECOND = 125_000


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of watched tables, and the place in the log after which they change."""

    tables: dict[str, list[str]]
    """Per channel the watched columns of every row, as JSON, in no particular order."""
    cursor: Cursor
    channels: frozenset[str] = frozenset()
    """That were asked for, whether a table is watched on them or not."""
    reservation: object = field(default=None, compare=False, repr=False)
    """The memory of the rows: it ends with the last snapshot that has it."""
    read_seconds: float = READ_SECONDS
    """How long a client may take to read it: it must not keep the memory for ever."""
    frames: dict[object, bytes] = field(default_factory=dict, compare=False, repr=False)
    """The latest of its messages as frames, per encoding and part."""


@dataclass(frozen=True, slots=True)
class Part:
    """What one message shows of a snapshot."""

    channel: str
    start: int
    """The number of its first row."""
    rows: list[str]
    cursor: Cursor | None
    """The place in the log, in the last part."""


def parts_of(snapshot: Snapshot) -> Iterator[Part]:
    """Yield a few rows at a time; a channel without rows, or without a table, has an empty part."""
    channels = sorted(snapshot.channels | snapshot.tables.keys()) or [""]
    for channel in channels:
        rows = snapshot.tables.get(channel, [])
        start = 0
        while True:
            end = end_of_part(rows, start)
            is_last = end >= len(rows) and channel == channels[-1]
            yield Part(channel, start, rows[start:end], snapshot.cursor if is_last else None)
            start = end
            if start >= len(rows):
                break


def end_of_part(rows: list[str], start: int) -> int:
    """Return the number after the last row of the part that begins at `start`."""
    size = 0
    for number in range(start, min(start + PART_ROWS, len(rows))):
        size += len(rows[number])
        if size > PART_CHARACTERS and number > start:
            return number
    return min(start + PART_ROWS, len(rows))
