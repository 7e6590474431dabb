"""When a message is as a document prints it."""

from __future__ import annotations

import json
import re
from difflib import unified_diff
from typing import Any

ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|uuid-here")

# From 2001 to 2286.
LEAST_SECONDS, MOST_SECONDS = 1e9, 1e10


def comparable(message: Any) -> str:
    """
    Return JSON that is the same for messages with the same keys in the same order.

    What differs from one run to the next is replaced by the name of its format: moments and ids of
    connections. All other values are left.
    """
    return json.dumps(formats(message), indent=2)


def is_as_printed(told: Any, printed: Any) -> bool:
    """Return True; fails with the difference where there is one."""
    found, wanted = comparable(told), comparable(printed)
    lines = unified_diff(wanted.splitlines(), found.splitlines(), "printed", "told", lineterm="")
    assert found == wanted, "\n".join(lines)
    return True


def kinds(message: Any) -> str:
    """Return the same where values may differ: of each only its type, or its format, is left."""
    return json.dumps(types(formats(message)), indent=2)


def formats(value: Any) -> Any:
    match value:
        case dict():
            return {name: formats(one) for name, one in value.items()}
        case list():
            return [formats(one) for one in value]
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


def types(value: Any) -> Any:
    match value:
        case dict():
            return {name: types(one) for name, one in value.items()}
        case list():
            return [types(one) for one in value]
        case str() if value.startswith("<"):
            return value
        case _:
            return type(value).__name__
