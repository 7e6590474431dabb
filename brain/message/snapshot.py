"""Tables as they are at one place in the log."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from brain.message.cursor import Cursor


@dataclass(frozen=True, slots=True)
class Snapshot:
    """The rows of watched tables, and the place in the log from which they change."""

    tables: dict[str, list[dict[str, Any]]]
    """Per channel the watched columns of every row, in no particular order."""
    cursor: Cursor
    frames: dict[str, list[bytes]] = field(default_factory=dict, compare=False, repr=False)
    """The messages that tell of it as WebSocket frames, per wire format."""
