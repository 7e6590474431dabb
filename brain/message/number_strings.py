"""
Numbers as strings, for clients that read all numbers as doubles, as JavaScript does.

Source: docs/protocol.md, "Numbers".
"""

from __future__ import annotations

import re
from datetime import datetime

from brain.message.event import Event
from brain.message.snapshot import Part
from brain.message.wire_format import WireFormat
from brain.message.wrapped_format import WrappedFormat

# Every integer up to here is a double, and every number of so many digits comes back as it was.
EXACT_INTEGERS = 2**53
EXACT_DIGITS = 15

# A number that is exact by its length alone: at most 15 digits, and an exponent of at most two.
SHORT_NUMBER = r"-?+[0-9][0-9.]{0,14}+(?:[eE][+-]?+[0-9]{1,2}+)?+(?![0-9.eE])"
NUMBER = r"-?+[0-9][0-9.]*+(?:[eE][+-]?+[0-9]++)?+"
STRING = r'"[^"\\]*+(?:\\.[^"\\]*+)*+"'
BETWEEN = r'[^"0-9-]*+'
# All up to a number that may not be exact, and that number. With possessive quantifiers, which
# never go back, one match passes over any number of strings and short numbers: a match for each of
# those would take Python ten times as long, in which the event loop stands still.
UP_TO_A_LONG_NUMBER = re.compile(
    rf"({BETWEEN}(?:(?:{SHORT_NUMBER}|{STRING}){BETWEEN})*+)(?:({NUMBER})|\Z)"
)


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
    return UP_TO_A_LONG_NUMBER.sub(quoted_if_inexact, text)


def quoted_if_inexact(found: re.Match[str]) -> str:
    before, number = found.groups()
    if number is None or is_exact(number):
        return found[0]
    return f'{before}"{number}"'


def is_exact(number: str) -> bool:
    """Return True if a double holds the number, in the sense of the two limits."""
    digits = number.lstrip("-")
    if digits.isdigit():
        # Python refuses to convert thousands of digits.
        return len(digits) <= EXACT_DIGITS + 1 and int(digits) <= EXACT_INTEGERS
    significant = digits.lower().partition("e")[0].replace(".", "").strip("0")
    # A number beyond the range of a double would be zero or infinite.
    is_in_range = not significant or 1e-300 < float(digits) < 1e300
    return len(significant) <= EXACT_DIGITS and is_in_range
