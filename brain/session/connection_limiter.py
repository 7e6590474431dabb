"""How many connections there may be: in all, per address, per user, and without a user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from brain.errors import TooManyConnections


@dataclass(frozen=True)
class ConnectionQuotas:
    """How many WebSockets this process accepts at a time."""

    in_all: int
    per_address: int
    """Loopback is not counted: behind a proxy on this machine, every client may come from there."""
    per_user: int
    anonymous: int
    """Of clients without a user."""


class ConnectionLimiter:
    """Counts connections, and refuses those above a quota."""

    def __init__(self, quotas: ConnectionQuotas) -> None:
        self._quotas = quotas
        self._open: Counter[tuple[str, str]] = Counter()

    def admit(self, address: str, user: str | None = None) -> Callable[[], None]:
        """
        Count a connection; return what releases it, which may be called more than once.

        Raises `TooManyConnections`.
        """
        quotas = self._quotas
        counted = [("all", "", quotas.in_all, 503, "the connection limit is reached")]
        if not is_loopback(address):
            what = "too many connections from this address"
            counted.append(("address", address, quotas.per_address, 429, what))
        if user is None:
            what = "the limit of connections without a user is reached"
            counted.append(("anonymous", "", quotas.anonymous, 503, what))
        else:
            what = "too many connections of this user"
            counted.append(("user", user, quotas.per_user, 429, what))
        for kind, name, most, status, what in counted:
            if self._open[kind, name] >= most:
                raise TooManyConnections(what, status)
        keys = [(kind, name) for kind, name, *_ in counted]
        self._open.update(keys)

        def release() -> None:
            self._open.subtract(keys)
            for key in keys:
                if not self._open[key]:
                    del self._open[key]
            keys.clear()

        return release

    def count(self) -> int:
        """Return how many connections are open."""
        return self._open["all", ""]


def is_loopback(address: str) -> bool:
    """Return True for this machine; a name or nothing (a Unix socket) counts as such."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True
