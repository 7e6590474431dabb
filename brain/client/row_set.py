"""Rows by their keys, kept up with changes; a transaction shows as a whole."""

from __future__ import annotations

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Generic, TypeVar
from uuid import UUID

from brain.client.change import Change
from brain.client.errors import InvalidRow
from brain.client.link import Frame
from brain.client.rows import Rows, pieces

Row = TypeVar("Row")
Key = tuple[Any, ...]


class RowSet(Generic[Row]):
    """Applies frames; no I/O."""

    def __init__(self, rows: Rows[Row]) -> None:
        self.shown: dict[Key, Row] = {}
        """What the table had at one moment."""
        self.is_complete = False
        """True once the first snapshot has ended."""
        self.invalid: InvalidRow | None = None
        """The latest row that does not fit the model, and is not shown."""
        self._rows = rows
        self._next: dict[Key, Row] | None = {}
        """What a snapshot has brought so far; None outside of one."""
        self._parts: dict[str, list[Frame]] = {}
        """Of transactions of which more is to come, by their ids."""

    def begin(self) -> None:
        """Take what follows for a snapshot; what is shown stays until its end."""
        self._next = {}
        self._parts.clear()

    def take(self, frame: Frame) -> bool:
        """Take a frame with an `op`; return True if `shown` has changed."""
        op, txid = frame["op"], frame.get("txid")
        match op:
            case "reset":
                self.begin()
                return False
            case "snapshot-end":
                return self._show_snapshot()
            case "commit":
                return self._apply(self._parts.pop(frame["txid"], []))
            case _ if txid is None or frame.get("last"):
                parts = self._parts.pop(txid, []) if txid is not None else []
                return self._apply([*parts, *pieces(frame)])
            case _:
                self._parts.setdefault(txid, []).append(frame)
                return False

    def _show_snapshot(self) -> bool:
        if self._next is not None:
            self.shown, self._next = self._next, None
        self.is_complete = True
        return True

    def _apply(self, parts: Sequence[Frame]) -> bool:
        rows = self.shown if self._next is None else self._next
        has_changed = False
        for part in parts:
            try:
                has_changed |= change_rows(rows, self._rows.change(part))
            except InvalidRow as error:
                self.invalid = error
                rows.pop(key_of(error.key), None)
                has_changed = True
        return has_changed and self._next is None


def change_rows(rows: dict[Key, Row], change: Change[Row]) -> bool:
    """Apply a change; return True if it is one of rows."""
    match change.op:
        case "insert" | "update" | "snapshot":
            assert change.row is not None
            rows[key_of(change.key)] = change.row
        case "delete" | "leave":
            rows.pop(key_of(change.key), None)
        case "truncate":
            rows.clear()
        case _:
            return False
    return True


def key_of(key: Any) -> Key:
    """Return a key as `RowSet` has it: of one value, or of the values of the primary key."""
    values = key if isinstance(key, list | tuple) else [key]
    return tuple(map(comparable, values))


def comparable(value: Any) -> Any:
    """Return a value that is hashable, and equal to that which PostgreSQL takes for the same."""
    match value:
        case float():
            return Decimal(repr(value))
        case dict() | list():
            return json.dumps(value, sort_keys=True, default=str)
        case UUID():
            return str(value)
        case _:
            return value
