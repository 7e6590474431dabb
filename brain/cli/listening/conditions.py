"""Filters and keys as they are typed."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from brain.client.exact_json import parse
from brain.errors import UsageError

CONDITION = re.compile(r"\s*([^=<>!]*[^=<>!\s])\s*(!=|<=|>=|=|<|>)(.*)", re.DOTALL)
COMPARISONS = {"=": "eq", "!=": "neq", "<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
WORDS = {"true": True, "false": False, "null": None}
USAGE = (
    """a condition is given as column=value, with !=, <, <=, > or >= as well, or as a JSON object"""
)


def parsed_filter(texts: Sequence[str]) -> dict[str, Any] | None:
    """Return the filter of which each text is a part; raises UsageError."""
    conditions = [parsed_condition(text) for text in texts]
    if len(conditions) > 1:
        return {"and": conditions}
    return conditions[0] if conditions else None


def parsed_condition(text: str) -> dict[str, Any]:
    """Return the filter in `column>=value`, or in a JSON object; raises UsageError."""
    if text.lstrip().startswith("{"):
        return parsed_object(text)
    match = CONDITION.fullmatch(text)
    if match is None:
        raise UsageError(USAGE)
    column, sign, typed = match.groups()
    value = parsed_value(typed)
    if value is not None:
        return {column: {COMPARISONS[sign]: value}}
    if sign != "=":
        raise UsageError(f"{column}{sign}null: nothing compares with null; {column}=null is true")
    return {column: {"is": None}}


def parsed_value(text: str) -> Any:
    """Return a text, which Brain takes for numbers and dates as well, or one of JSON's words."""
    if text in WORDS:
        return WORDS[text]
    if text.startswith('"'):
        try:
            return json.loads(text)
        except ValueError:
            pass
    return text


def parsed_object(text: str) -> dict[str, Any]:
    try:
        filter: dict[str, Any] = parse(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"the filter is no JSON: {error}") from None
    return filter


def parsed_key(text: str) -> Any:
    """Return the key of a row: a JSON value, a list of them, or a text that is none."""
    try:
        return parse(text)
    except (ValueError, RecursionError):
        return text
