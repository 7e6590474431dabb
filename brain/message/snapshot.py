"""Tables as they are at one place in the log."""

from __future__ import annotations

from dataclasses import dataclass, field

from brain.message.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Rows of watched tables, and the place in the log after which they change."""

    tables: dict[str, list[str]]
    """Per channel the watched columns of every row, as JSON, in no particular order."""
    cursor: Cursor
    channels: frozenset[str] = frozenset()
    """That were asked for, whether a table is watched on them or not."""
    frames: dict[str, list[bytes]] = field(default_factory=dict, compare=False, repr=False)
    """Its messages as frames, per encoding."""
