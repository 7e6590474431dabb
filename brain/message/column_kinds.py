"""What the columns of a channel are in JSON, and which filters can therefore never match."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from brain.message.comparison_keys import NOT_FINITE
from brain.message.matching import SHOWN_CHARACTERS, FilterValue, Topic

ColumnKind = Literal["string", "number", "boolean", "any"]
ColumnKinds = Mapping[str, Mapping[str, ColumnKind]]
"""The columns by channel, for channels of watched tables."""


def refusal(topics: Iterable[Topic], kinds: ColumnKinds) -> str | None:
    """
    Return why a filter of these topics matches nothing ever; None if one of them may match it.

    What a client asks for by one name may be a row of a watched channel or a channel of its own;
    then the row counts.
    """
    reasons = [
        mismatch(topic, kinds)
        for topic in topics
        if topic.where and (topic.channel in kinds or topic.channel.partition(":")[0] not in kinds)
    ]
    return reasons[0] if reasons and None not in reasons else None


def mismatch(topic: Topic, kinds: ColumnKinds) -> str | None:
    columns = kinds.get(topic.channel)
    if columns is None:  # no table is watched: what is published may have any members
        return None
    for name, value, is_boolean in topic.where:
        if name not in columns:
            shown = name[:SHOWN_CHARACTERS]
            return f"{topic.channel} has no column {shown}; it has {', '.join(columns)}"
        if not may_equal(columns[name], value, is_boolean):
            return f"where: {name} is a {columns[name]}"
    return None


def may_equal(kind: ColumnKind, value: FilterValue, is_boolean: bool) -> bool:
    if value is None or kind == "any":
        return True
    if is_boolean:
        return kind == "boolean"
    if isinstance(value, str):
        return kind == "string" or (kind == "number" and value in NOT_FINITE)
    return kind == "number"
