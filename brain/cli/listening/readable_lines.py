"""A change as a line that a person reads."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from brain.cli.listening.exact_text import visible, word_text
from brain.client import Change

LONGEST_VALUE = 200
NO_TIME = " " * len("01:30:00.000")


def readable_line(change: Change[Any]) -> str:
    """Return the time, what happened, the key, and the columns; of an update those that changed."""
    parts = [local_time(change.at), f"{change.op:<8}", visible(change.channel)]
    if change.key is not None:
        parts.append(" ".join(map(shortened, change.key)))
    if change.omitted:
        parts.append(f"(without {visible(', '.join(change.omitted))})")
    parts += details(change)
    return " ".join(parts).rstrip()


def details(change: Change[Any]) -> list[str]:
    match change.op:
        case "message":
            return [visible(change.type or ""), shortened(change.data)]
        case "reset":
            return [visible(change.reason or "")]
        case "update" if change.row is not None and change.old is not None:
            return [
                f"{visible(name)}={shortened(change.old.get(name))}→{shortened(value)}"
                for name, value in change.row.items()
                if name not in change.old or change.old[name] != value
            ]
        case _:
            return columns(change.row or change.old or {})


def columns(row: Mapping[str, Any]) -> list[str]:
    return [f"{visible(name)}={shortened(value)}" for name, value in row.items()]


def shortened(value: Any) -> str:
    text = word_text(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}…"


def local_time(at: str | None) -> str:
    """Return the time of day of a moment, by the clock of this machine."""
    if at is None:
        return NO_TIME
    return datetime.fromisoformat(at).astimezone().strftime("%H:%M:%S.%f")[: len(NO_TIME)]
