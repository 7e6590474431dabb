"""What one client has asked to hear."""

from __future__ import annotations

from collections.abc import Callable

from brain.message.topic import Interest, Topic, Where, interest_in, topics_of


class Subscriptions:
    """Names of channels, or of rows of channels, with filters; whether allowed or not."""

    def __init__(self, implied: frozenset[Topic], most: int) -> None:
        self._implied = implied
        self._most = most
        self._asked: dict[tuple[str, Where], None] = {}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._asked)

    def add(self, name: str, where: Where) -> bool:
        """Return whether there was room for it, or it was there already."""
        if (name, where) not in self._asked and len(self._asked) >= self._most:
            return False
        self._asked[name, where] = None
        return True

    def remove(self, name: str, where: Where) -> None:
        self._asked.pop((name, where), None)

    def interest(self, may_hear: Callable[[str], bool]) -> Interest:
        """Return all of it that is allowed."""
        topics = set(self._implied)
        for name, where in self._asked:
            topics |= topics_of(name, where, may_hear)
        return interest_in(frozenset(topics))
