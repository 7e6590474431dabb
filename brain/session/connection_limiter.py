"""How many connections there may be: in all, per address, per user, and without a user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import NamedTuple

from brain.errors import TooManyConnections
from brain.settings import host_name

ANONYMOUS = ("anonymous", "")

# Longer ones, which are no addresses, count as one if they begin alike.
MOST_ADDRESS_CHARACTERS = 64

MOST_EVALUATED_TOGETHER = 2000
"""Values that the filters of all connections of a user, or from an address, compare per event."""
TOO_MANY_TOGETHER = (
    f"the filters of a user's connections may compare {MOST_EVALUATED_TOGETHER} values together,"
    " besides those that a row has to equal"
)


@dataclass(frozen=True)
class ConnectionQuotas:
    """How many connections of clients this process accepts at a time."""

    in_all: int
    per_address: int
    """Loopback is not counted: behind a proxy on this machine, every client may come from there."""
    per_user: int
    anonymous: int
    """Of clients without a user."""


class Limit(NamedTuple):
    """How many connections of one kind there may be."""

    key: tuple[str, str]
    """The kind, and the address or user."""
    most: int
    http_status: int
    reason: str

    @property
    def kind(self) -> str:
        return self.key[0]


class ConnectionLimiter:
    """Counts connections, and refuses those above a quota."""

    def __init__(self, quotas: ConnectionQuotas) -> None:
        self.quotas = quotas
        """May be replaced: open connections stay."""
        self._open: Counter[tuple[str, str]] = Counter()
        self._evaluated: Counter[tuple[str, str]] = Counter()
        """How many values filters compare, per user and, of clients without one, per address."""

    def admit(self, address: str, user: str | None = None) -> CountedConnection:
        """Count a connection, until it is released. Raises `TooManyConnections`."""
        quotas = self.quotas
        limits = [Limit(("all", ""), quotas.in_all, 503, "the connection limit is reached")]
        counted = counted_address(address)
        if counted is not None:
            reason = "too many connections from this address"
            limits.append(Limit(("address", counted), quotas.per_address, 429, reason))
        if user is None:
            reason = "the limit of connections without a user is reached"
            limits.append(Limit(ANONYMOUS, quotas.anonymous, 503, reason))
        else:
            limits.append(self._of_user(user))
        self._add(limits)
        return CountedConnection(self, [limit.key for limit in limits])

    def count(self) -> int:
        """Return how many connections are open."""
        return self._open["all", ""]

    def _of_user(self, user: str) -> Limit:
        reason = "too many connections of this user"
        return Limit(("user", user), self.quotas.per_user, 429, reason)

    def _add(self, limits: Sequence[Limit]) -> None:
        for limit in limits:
            if self._open[limit.key] >= limit.most:
                raise TooManyConnections(limit.reason, limit.http_status, limit.kind)
        self._open.update(limit.key for limit in limits)

    def _remove(self, keys: Sequence[tuple[str, str]]) -> None:
        self._open.subtract(keys)
        for key in keys:
            if not self._open[key]:
                del self._open[key]


class CountedConnection:
    """A connection that has been admitted."""

    __slots__ = ("_evaluated", "_keys", "_limiter")

    def __init__(self, limiter: ConnectionLimiter, keys: list[tuple[str, str]]) -> None:
        self._limiter = limiter
        self._keys = keys
        self._evaluated = 0

    def assign_user(self, user: str) -> None:
        """Count an anonymous connection as one of `user`. Raises `TooManyConnections`."""
        limit = self._limiter._of_user(user)
        self._limiter._add([limit])
        evaluated = self._evaluated
        self.evaluate(0)
        self._limiter._remove([ANONYMOUS])
        self._keys.remove(ANONYMOUS)
        self._keys.append(limit.key)
        self.evaluate(evaluated)

    def may_evaluate(self, values: int) -> bool:
        """Return False if its filters would compare more, and all of its owner too many."""
        more = values - self._evaluated
        known = [self._limiter._evaluated[key] for key in self._owners]
        return more <= 0 or all(each + more <= MOST_EVALUATED_TOGETHER for each in known)

    def evaluate(self, values: int) -> None:
        """Count so many values, which its filters compare from now on."""
        for key in self._owners:
            self._limiter._evaluated[key] += values - self._evaluated
            if not self._limiter._evaluated[key]:
                del self._limiter._evaluated[key]
        self._evaluated = values

    @property
    def _owners(self) -> list[tuple[str, str]]:
        """The quotas that its filters count against: of the user, or otherwise of the address."""
        kind = "address" if ANONYMOUS in self._keys else "user"
        return [key for key in self._keys if key[0] == kind]

    def release(self) -> None:
        """Stop counting it; may be called again."""
        self.evaluate(0)
        self._limiter._remove(self._keys)
        self._keys = []


def counted_address(address: str) -> str | None:
    """
    Return as what an address is counted; None for this machine, of which a Unix socket has none.

    A proxy may send any text as the address of a client, and some send a port with it: such a text
    counts as an address, too, without its port.
    """
    if not address:
        return None
    name = host_name(address) or address[:MOST_ADDRESS_CHARACTERS]
    try:
        return None if ip_address(name).is_loopback else name
    except ValueError:
        return name[:MOST_ADDRESS_CHARACTERS]
