"""Comparison of received messages with those that a document prints."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from difflib import unified_diff
from typing import Any

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|uuid-here")

# From 2001 to 2286.
LEAST_SECONDS, MOST_SECONDS = 1e9, 1e10


def comparable(message: Any) -> str:
    """
    Return JSON that is equal for messages with equal values and the same keys in the same order.

    Times and ids of connections differ from one run to the next: the names of their formats replace
    them. All other values are left.
    """
    return json.dumps(each_value(message, format_of), indent=2)


def is_as_printed(received: Any, printed: Any) -> bool:
    """Return True if they are equal; fail with the difference if not."""
    found, wanted = comparable(received), comparable(printed)
    lines = unified_diff(
        wanted.splitlines(), found.splitlines(), "printed", "received", lineterm=""
    )
    assert found == wanted, "\n".join(lines)
    return True


def kinds(message: Any) -> str:
    """Return JSON that has the type or the format of each value in its place."""
    return json.dumps(each_value(each_value(message, format_of), type_of), indent=2)


def each_value(message: Any, of: Callable[[Any], Any]) -> Any:
    """Return a message with `of(value)` in place of every value in it."""
    match message:
        case dict():
            return {name: each_value(one, of) for name, one in message.items()}
        case list():
            return [each_value(one, of) for one in message]
        case _:
            return of(message)


def format_of(value: Any) -> Any:
    match value:
        case str() if ISO.fullmatch(value):
            return "<ISO 8601 with milliseconds>"
        case str() if UUID.fullmatch(value):
            return "<UUID>"
        case float() if LEAST_SECONDS < value < MOST_SECONDS:
            return "<seconds since 1970>"
        case int() if LEAST_SECONDS < value / 1000 < MOST_SECONDS:
            return "<whole milliseconds since 1970>"
        case _:
            return value


def type_of(value: Any) -> str:
    if isinstance(value, str) and value.startswith("<"):
        return value
    return type(value).__name__
