"""The rows of a live table, and what has just become of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from brain.cli.listening.exact_text import cell_text, json_text
from brain.client import Change

MOST_ROWS = 1000
"""Of one channel; of more, those that changed last are kept."""
LONGEST_CELL = 200
FADE_SECONDS = 1.0


@dataclass(slots=True)
class TableRow:
    """A row as it is shown."""

    number: int
    """Rows are shown in the order in which they came."""
    cells: dict[str, str]
    came_at: float | None
    """None for a row of a snapshot, which is nothing new."""
    changed_at: dict[str, float] = field(default_factory=dict)
    """When the cells changed, by column."""
    gone_at: float | None = None
    """A row that is gone stays for a moment."""

    def fades_until(self) -> float:
        moments = [self.came_at, self.gone_at, *self.changed_at.values()]
        latest = max((each for each in moments if each is not None), default=float("-inf"))
        return latest + FADE_SECONDS


class TableRows:
    """Keeps the rows of one channel; its memory is bounded."""

    def __init__(self, channel: str, *, has_snapshot: bool, most: int = MOST_ROWS) -> None:
        self.channel = channel
        self.changes = 0
        self.let_go = 0
        """How many rows there were more than are kept."""
        self._has_snapshot = has_snapshot
        self._most = most
        self._numbers = count()
        self._rows: dict[str, TableRow] = {}
        """Those that changed last are the last."""
        self._before: set[str] | None = None
        """While rows come again, the keys of those that have not."""
        self._fading: dict[str, float] = {}
        """The keys of rows to be shown otherwise, and until when."""

    def __len__(self) -> int:
        return sum(row.gone_at is None for row in self._rows.values())

    def latest(self, most: int) -> list[TableRow]:
        """Return the rows that changed last, in the order in which they came."""
        latest = list(self._rows.values())[-most:] if most > 0 else []
        return sorted(latest, key=lambda row: row.number)

    def is_fading(self) -> bool:
        """Return True while something is highlighted that will not be."""
        return bool(self._fading)

    def fade(self, now: float) -> None:
        """Drop the rows that are gone, after a moment."""
        for key in [key for key, until in self._fading.items() if until <= now]:
            del self._fading[key]
            row = self._rows.get(key)
            if row is not None and row.gone_at is not None:
                del self._rows[key]

    def apply(self, change: Change[Any], now: float) -> None:
        """Note a change."""
        match change.op:
            case "insert" | "update" | "snapshot":
                self._put(change, now)
            case "delete" | "leave":
                self._remove(json_text(change.key), now)
            case "truncate":
                self._clear()
            case "reset":
                self._begin_anew()
            case "snapshot-end":
                for key in self._before or ():
                    self._rows.pop(key, None)
                self._before = None
        if change.op not in ("snapshot", "snapshot-end", "reset", "live"):
            self.changes += 1

    def _put(self, change: Change[Any], now: float) -> None:
        key = json_text(change.key)
        if self._before is not None:
            self._before.discard(key)
        cells = cells_of(change.row or {})
        row = self._rows.pop(key, None)
        if row is None or row.gone_at is not None:
            came_at = None if change.op == "snapshot" else now
            row = TableRow(next(self._numbers), cells, came_at)
        else:
            changed = [name for name, text in cells.items() if row.cells.get(name) != text]
            row.changed_at |= dict.fromkeys(changed, now)
            row.cells = cells
        self._rows[key] = row
        if row.fades_until() > now:
            self._fading[key] = row.fades_until()
        if len(self._rows) > self._most:
            oldest = next(iter(self._rows))
            del self._rows[oldest]
            self._fading.pop(oldest, None)
            self.let_go += 1

    def _remove(self, key: str, now: float) -> None:
        row = self._rows.pop(key, None)
        if row is not None:
            row.gone_at = now
            self._rows[key] = row
            self._fading[key] = row.fades_until()
        if self._before is not None:
            self._before.discard(key)

    def _begin_anew(self) -> None:
        """Keep the rows of before until those of the snapshot have come."""
        if self._has_snapshot:
            self._before = set(self._rows)
            self.let_go = 0
        else:
            self._clear()

    def _clear(self) -> None:
        self._rows.clear()
        self._fading.clear()
        self.let_go = 0


def cells_of(row: Mapping[str, Any]) -> dict[str, str]:
    return {name: cell_text(value)[:LONGEST_CELL] for name, value in row.items()}
