"""
Numbers as strings, for clients that read all numbers as doubles, as JavaScript does.

Source: docs/protocol.md, "Numbers".
"""

from __future__ import annotations

import re
from datetime import datetime

from brain.message.event import Event
from brain.message.json_text import STRING
from brain.message.snapshot import Part
from brain.message.wire_format import WireFormat
from brain.message.wrapped_format import WrappedFormat

# Every integer up to here is a double, and every number of so many digits comes back as it was.
EXACT_INTEGERS = 2**53
EXACT_DIGITS = 15

EXPONENT = frozenset("eE")
TOKEN = re.compile(rf"{STRING}|(-?\d+)((?:\.\d+)?(?:[eE][+-]?\d+)?)")


class NumberStringsFormat(WrappedFormat):
    """Speaks like another format; numbers that a double does not hold are strings."""

    def __init__(self, plain: WireFormat) -> None:
        super().__init__(plain, "with number strings")

    def render(self, event: Event) -> str | None:
        text = super().render(event)
        return None if text is None else with_number_strings(text)

    def render_leaving(self, event: Event) -> str | None:
        text = super().render_leaving(event)
        return None if text is None else with_number_strings(text)

    def render_part(self, part: Part, now: datetime) -> str | None:
        text = super().render_part(part, now)
        return None if text is None else with_number_strings(text)


def with_number_strings(text: str) -> str:
    """Return a JSON text in which numbers that a double does not hold are strings."""
    return TOKEN.sub(quoted_if_inexact, text)


def quoted_if_inexact(found: re.Match[str]) -> str:
    integer, rest = found.groups()
    if integer is None or is_exact(integer, rest):
        return found[0]
    return f'"{found[0]}"'


def is_exact(integer: str, rest: str) -> bool:
    """Return True if a double holds the number, in the sense of the two limits."""
    if not rest:
        # Python refuses to convert thousands of digits.
        return len(integer) <= EXACT_DIGITS or (
            len(integer) <= EXACT_DIGITS + 2 and abs(int(integer)) <= EXACT_INTEGERS
        )
    if len(integer) + len(rest) <= EXACT_DIGITS and not EXPONENT.intersection(rest):
        return True  # as most are: the rest of this takes five times as long
    digits, _, _ = (integer + rest).lower().partition("e")
    significant = digits.lstrip("-").replace(".", "").strip("0")
    # A number beyond the range of a double would be zero or infinite.
    value = abs(float(integer + rest))
    is_in_range = 1e-300 < value < 1e300 or not significant
    return len(significant) <= EXACT_DIGITS and is_in_range
