"""Rows of a table in the order of its primary key, a page at a time, each at a place in the log."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field

from brain.message.condition import EVERYTHING, Condition
from brain.message.cursor import Cursor

MOST_ROWS = 500
"""Of a page."""


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

    rows: tuple[tuple[str, str], ...]
    """For each the JSON of its key and that of its watched columns."""
    cursor: Cursor
    """The place in the log after which they change."""
    end: RowPlace | None
    """After which the next page begins; None: there are no more rows."""
    reservation: object = field(default=None, repr=False)
    """The memory of the rows: it ends with the page."""
    frames: dict[Hashable, list[bytes]] = field(default_factory=dict, repr=False)
    """Its messages as frames, per encoding and subscription."""
