"""Conditions from JSON texts."""

from __future__ import annotations

from brain.message.condition import Condition
from brain.message.condition_parsing import parse_condition
from brain.message.matching import filter_json


def condition_from_json(text: str) -> Condition:
    """Return the condition for a filter, as a client frame has it."""
    return parse_condition(filter_json(text))
