"""Reads JSON without losing a digit of its numbers."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

# Python refuses to parse longer ones as text, because that takes time that grows with the square.
MOST_INT_DIGITS = 4000


def exact_number(text: str) -> float | Decimal:
    """Return a float if that has all digits of the number, and a Decimal otherwise."""
    number = float(text)
    exact = Decimal(text)
    return number if Decimal(repr(number)) == exact else exact


def exact_int(text: str) -> int:
    return int(text) if len(text) <= MOST_INT_DIGITS else int(Decimal(text))


def with_floats(value: Any) -> Any:
    """Return what `parse(…, decimals=True)` returned as `parse` returns it."""
    match value:
        case Decimal():
            return exact_number(str(value))
        case list():
            return [with_floats(each) for each in value]
        case dict():
            return {name: with_floats(each) for name, each in value.items()}
        case _:
            return value


_parse = json.JSONDecoder(parse_float=exact_number, parse_int=exact_int).decode
_parse_decimals = json.JSONDecoder(parse_float=Decimal, parse_int=exact_int).decode


def parse(text: str, *, decimals: bool = False) -> Any:
    """Parse a text; with `decimals`, every number that is no integer is a Decimal."""
    return _parse_decimals(text) if decimals else _parse(text)
