"""Rows of a table in the order of its primary key, a page at a time, each at a place in the log."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field

from brain.message.condition import EVERYTHING, Condition
from brain.message.cursor import Cursor
from brain.message.snapshot import READ_SECONDS

MOST_ROWS = 500
"""Of a page."""
# Rendering a part must not hold up the event loop, and many clients refuse large messages.
PART_CHARACTERS = 32 * 1024

KeyedRow = tuple[str, str]
"""The JSON of a key, and of the watched columns of its row."""


@dataclass(frozen=True, slots=True)
class RowPlace:
    """Where a row stands in the order of the keys of its table."""

    text: str
    order: str
    """How the table is ordered: with another order the place says nothing."""


@dataclass(frozen=True, slots=True)
class PageRequest:
    """What a page has: equal requests at the same time get the same page."""

    channel: str
    allowed: str | None = None
    """Of a table with row rules the rows that the client may see, as `RowAccess` has them."""
    condition: Condition = EVERYTHING
    """That the rows match."""
    key: str | None = None
    """The name of one row, as in topics."""
    after: RowPlace | None = None
    """The page begins after this row."""
    limit: int | None = MOST_ROWS
    """Of its rows; None: it has all, as far as memory allows."""


@dataclass(frozen=True, slots=True, eq=False)
class Page:
    """Rows of one moment."""

    rows: tuple[KeyedRow, ...]
    cursor: Cursor
    """The place in the log after which they change."""
    end: RowPlace | None
    """After which the next page begins; None: there are no more rows."""
    size_bytes: int = 0
    """Of the memory that its rows take."""
    reservation: object = field(default=None, repr=False)
    """The memory of the rows: it ends with the page."""
    read_seconds: float = READ_SECONDS
    """How long a client may take to read it: it must not keep the memory for ever."""
    frames: dict[Hashable, bytes] = field(default_factory=dict, repr=False)
    """The latest of its messages as frames, per encoding, subscription and part."""


def parts_of(rows: Sequence[KeyedRow]) -> Iterator[tuple[int, Sequence[KeyedRow]]]:
    """Yield the rows of each message, with the number of the first one."""
    start = size = 0
    for number, (key, row) in enumerate(rows):
        size += len(key) + len(row)
        if number > start and (size > PART_CHARACTERS or number - start == MOST_ROWS):
            yield start, rows[start:number]
            start, size = number, len(key) + len(row)
    if rows:
        yield start, rows[start:]
