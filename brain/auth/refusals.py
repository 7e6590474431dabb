"""How the values of a client that is refused are shown in the log."""

from __future__ import annotations

from typing import TypeVar

from brain.problems import printable

LONGEST_SHOWN = 200

Value = TypeVar("Value", str, None, str | None)


def beginning(value: Value) -> Value:
    """Return as much of a value of a client as a line of the log has room for."""
    return value if value is None else value[:LONGEST_SHOWN]


def shown(value: str | None) -> str:
    """Return a value of a client as it stands in the text of a line."""
    return "none" if value is None else repr(printable(value))
