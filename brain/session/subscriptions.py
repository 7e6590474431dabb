"""What one client has subscribed to, by the names that it gave."""

from __future__ import annotations

from collections.abc import Iterable

from brain.message.matching import Filter, ReadAccess, Topic, requested_topics


class Subscriptions:
    """Names of channels, or of rows of channels, with filters; whether readable or not."""

    __slots__ = ("_implied", "_most", "_requested")

    def __init__(
        self, implied: frozenset[Topic], names: Iterable[str], where: Filter, most: int
    ) -> None:
        """Begin with `names`, however many; no more than `most` can be reached by adding."""
        self._implied = implied
        self._most = most
        self._requested: dict[tuple[str, Filter], None] = {(name, where): None for name in names}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self._requested)

    def add(self, name: str, where: Filter) -> bool:
        """Add a subscription; return False if there are too many."""
        if (name, where) not in self._requested and len(self._requested) >= self._most:
            return False
        self._requested[name, where] = None
        return True

    def remove(self, name: str, where: Filter) -> None:
        self._requested.pop((name, where), None)

    def topics(self, access: ReadAccess, *, with_implied: bool) -> frozenset[Topic]:
        """Return those that the client may read, with those that it did not name."""
        topics = set(self._implied) if with_implied else set()
        for name, where in self._requested:
            topics |= requested_topics(name, where, access)
        return frozenset(topics)
