"""Values as text: with all their digits, and without control characters."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

# Below it, a number is written with an exponent: a double may have 300 zeros after the point.
LEAST_EXPONENT = -40
# JSON escapes what lies below; these may control a terminal, too, or the direction of a text.
NOT_ESCAPED = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
PLAIN = re.compile(r"[^\s\"'=,→]+")
JSON_WORDS = frozenset({"null", "true", "false"})


def json_text(value: Any) -> str:
    """Return JSON: every digit is kept, and no character in it controls a terminal."""
    match value:
        case str():
            quoted = json.dumps(value, ensure_ascii=False)
            return NOT_ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}", quoted)
        case None | bool():
            return json.dumps(value)
        case int():
            return str(Decimal(value))  # an int of more than 4300 digits refuses to be a text
        case Decimal():
            return number_text(value)
        case float():
            return json.dumps(value)
        case list() | tuple():
            return f"[{','.join(map(json_text, value))}]"
        case dict():
            members = (f"{json_text(name)}:{json_text(each)}" for name, each in value.items())
            return f"{{{','.join(members)}}}"
        case _:
            raise TypeError(f"expected a value of JSON, got {type(value).__name__}")


def number_text(number: Decimal) -> str:
    """Return a number as PostgreSQL writes it."""
    exponent = number.as_tuple().exponent
    is_plain = isinstance(exponent, int) and exponent <= 0 and number.adjusted() > LEAST_EXPONENT
    return format(number, "f") if is_plain else str(number).lower()


def cell_text(value: Any) -> str:
    """Return a value as a person reads it: a text without quotes, anything else as JSON."""
    return visible(value) if isinstance(value, str) else json_text(value)


def word_text(value: Any) -> str:
    """Return a value as one word of a line: a text is in quotes unless it is a word."""
    is_word = isinstance(value, str) and PLAIN.fullmatch(value) and value.isprintable()
    return value if is_word and value not in JSON_WORDS else json_text(value)


def visible(text: str) -> str:
    r"""Return a text in one line, with `\x1b` for a character that is not printed."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)
