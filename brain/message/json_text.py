"""
JSON texts that are not parsed: split into their members, and put into messages.

A row's JSON is sent as PostgreSQL wrote it. Parsing it would round numbers, and fail for numbers
beyond a float's range and for deep nesting. Splitting does neither: msgspec returns the members
as they are written, in a tenth of the time that a scanner in Python takes; it recurses, so that
texts which are nested too deep for it are left to the scanner.
"""

from __future__ import annotations

import json
import re
from decimal import Decimal, InvalidOperation
from sys import getsizeof
from typing import Any

import msgspec
import orjson

STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
# An element, or the name and the value of a member; of an object or an array only the beginning.
ELEMENT = re.compile(rf'[\s,]*({STRING}|[^\s,{{}}\[\]"]+|[\[{{])')
MEMBER = re.compile(rf'[\s,]*({STRING})\s*:\s*({STRING}|[^\s,{{}}\[\]"]+|[\[{{])')
# A string is skipped as a whole: the brackets in it do not count.
BRACKET = re.compile(rf"{STRING}|[\[\]{{}}]")

OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
ARRAY = msgspec.json.Decoder(list[msgspec.Raw])

Text = str | msgspec.Raw
"""A JSON text; `text_of` makes a string of it."""

Scalar = str | int | Decimal | tuple[bool] | tuple[()] | None
"""A value that is no object or array; numbers are compared by all their digits."""
NO_SCALAR: Scalar = ()
WORDS: dict[str, Scalar] = {"null": None, "true": (True,), "false": (False,)}


def split_object(text: str) -> dict[str, Text]:
    """
    Return the texts of the members of a valid JSON object; of two with one name the later.

    Raises `ValueError` for a JSON text that is no object.
    """
    try:
        return OBJECT.decode(text)  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError):
        return scan_object(text)


def split_array(text: str) -> list[Text]:
    """Return the texts of the elements of a valid JSON array. Raises `ValueError` for another."""
    try:
        return ARRAY.decode(text)  # type: ignore[return-value]
    except (msgspec.DecodeError, RecursionError):
        return scan_array(text)


def scan_object(text: str) -> dict[str, Text]:
    """Do what `split_object` does, for any depth."""
    members: dict[str, Text] = {}
    place = opening(text, "{")
    while (found := MEMBER.match(text, place)) is not None:
        start, place = found.span(2)
        if found[2] in "[{":
            place = end_of(text, start)
        members[string_of(found[1])] = text[start:place]
    return members


def scan_array(text: str) -> list[Text]:
    """Do what `split_array` does, for any depth."""
    elements: list[Text] = []
    place = opening(text, "[")
    while (found := ELEMENT.match(text, place)) is not None:
        start, place = found.span(1)
        if found[1] in "[{":
            place = end_of(text, start)
        elements.append(text[start:place])
    return elements


def opening(text: str, bracket: str) -> int:
    """Return the place after the opening bracket."""
    stripped = text.lstrip()
    if not stripped.startswith(bracket):
        raise ValueError(f"expected JSON that begins with {bracket}, got {stripped[:20]}")
    return len(text) - len(stripped) + 1


def end_of(text: str, start: int) -> int:
    """Return the place after the object or array that begins at `start`."""
    depth = 0
    for found in BRACKET.finditer(text, start):
        if found[0] in "[{":
            depth += 1
        elif found[0] in "]}":
            depth -= 1
            if depth == 0:
                return found.end()
    raise ValueError("the JSON text ends too early")


def held_bytes(text: str) -> int:
    """Return how much memory a text takes, with the copy in UTF-8 that splitting makes of it."""
    size = getsizeof(text)
    # A character that takes so many bytes takes one more in UTF-8 at most.
    return size if text.isascii() else 2 * size + len(text)


def text_of(text: Text) -> str:
    return text if isinstance(text, str) else str(memoryview(text), "utf-8")


def string_of(text: str) -> str:
    """Return the string that a JSON string stands for."""
    # json accepts half of a surrogate pair, which a column of type json may hold.
    value: str = json.loads(text) if "\\" in text else text[1:-1]
    return value


def is_unicode(text: str) -> bool:
    """Return True for a string that can be sent: UTF-8 has no half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_object(text: str) -> bool:
    """Return True for the JSON of an object, whatever its numbers and its escapes are."""
    try:
        # What it stands for does not matter: as a float or an int, a number might be refused.
        found = json.loads(text, parse_float=str, parse_int=str, parse_constant=refuse_constant)
    except (ValueError, RecursionError):
        return False
    return isinstance(found, dict)


def refuse_constant(name: str) -> None:
    raise ValueError(f"JSON has no {name}")


def scalar(value: str | int | Decimal | bool | None) -> Scalar:
    """Return what is equal for equal values alone: in Python `True` equals 1."""
    return (value,) if isinstance(value, bool) else value


def scalar_in(text: str) -> Scalar:
    """Return the `scalar` of a JSON text; of an object or array what is equal to no value."""
    first = text[0]
    if first == '"':
        return string_of(text)
    if first in "-0123456789":
        try:
            return Decimal(text)
        except InvalidOperation:
            return NO_SCALAR  # an exponent of more than 18 digits, which no value has
    return WORDS.get(text, NO_SCALAR)


def key_text(key: str) -> str:
    """
    Return the name of a row in topics, from the JSON array with the values of its primary key.

    The value itself; of a composite key all values, joined by colons, with `%` and `:` in them
    written as `%25` and `%3A`.
    """
    if "," not in key and "\\" not in key:  # one value, without escapes
        return key[2:-2] if key[1] == '"' else key[1:-1]
    parts = [
        string_of(part) if part.startswith('"') else part for part in map(text_of, split_array(key))
    ]
    if len(parts) == 1:
        return parts[0]
    return ":".join(part.replace("%", "%25").replace(":", "%3A") for part in parts)


def dumps(value: Any) -> str:
    """Return the JSON text of `value`, in which an `orjson.Fragment` is a text of its own."""
    return orjson.dumps(value).decode()
