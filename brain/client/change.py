"""What a subscription yields."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

Op = Literal[
    "insert",
    "update",
    "delete",
    "leave",
    "truncate",
    "message",
    "snapshot",
    "snapshot-end",
    "reset",
    "live",
]
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Change(Generic[Row]):
    """One change of a row, one row of a snapshot, one message, or a word on what follows."""

    op: Op
    channel: str
    key: list[Any] | None = None
    """The values of the primary key, in their order."""
    row: Row | None = None
    """Of `insert`, `update` and `snapshot`: the watched columns, or an instance of the model."""
    old: Mapping[str, Any] | None = None
    """Of `update` and `delete`: the columns before, as they came; a model need not fit them."""
    omitted: tuple[str, ...] = ()
    """Columns that are too large or cannot be shown, and are left out."""
    type: str | None = None
    """Of `message`."""
    data: Any = None
    """Of `message`."""
    private: bool = False
    """Of `message`: true if it is for this user alone."""
    at: str | None = None
    """When the change was made, in ISO 8601."""
    cursor: str | None = None
    """The place after the change; within a snapshot there is none."""
    txid: str | None = None
    """The transaction, as `pg_current_xact_id()` returns it."""
    last: bool = False
    """True if the transaction has no more for this subscription."""
    reason: str | None = None
    """Of `reset`."""
