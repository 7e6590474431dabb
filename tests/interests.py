"""What tests want to hear."""

from __future__ import annotations

from collections.abc import Iterable

from brain.message.topic import Interest, Topic, interest_in


def in_channels(names: Iterable[str]) -> Interest:
    """Return the interest in whole channels."""
    return interest_in(frozenset(map(Topic, names)))
