"""Who may come in, as far as that is a question of how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address

from brain.errors import TooManyConnections


@dataclass(frozen=True)
class DoorLimits:
    """How many WebSockets there may be at a time, in this process."""

    in_all: int
    per_address: int
    """Not counted for this machine itself: behind a proxy on it, everybody may come from there."""
    per_user: int
    anonymous: int
    """Of clients without a user."""


class Doorkeeper:
    """Counts who is inside."""

    def __init__(self, limits: DoorLimits) -> None:
        self._limits = limits
        self._inside: Counter[tuple[str, str]] = Counter()

    def admit(self, address: str, user: str | None = None) -> Callable[[], None]:
        """
        Let a client in; return what is to be called when it is over, once or more often.

        Raises `TooManyConnections`.
        """
        limits = self._limits
        counted = [("all", "", limits.in_all, 503, "Brain has as many clients as it may have")]
        if not is_loopback(address):
            what = "too many connections from this address"
            counted.append(("address", address, limits.per_address, 429, what))
        if user is None:
            what = "Brain has as many clients without a user as it may have"
            counted.append(("anonymous", "", limits.anonymous, 503, what))
        else:
            what = "too many connections of this user"
            counted.append(("user", user, limits.per_user, 429, what))
        for kind, name, most, status, what in counted:
            if self._inside[kind, name] >= most:
                raise TooManyConnections(what, status)
        keys = [(kind, name) for kind, name, *_ in counted]
        self._inside.update(keys)

        def leave() -> None:
            self._inside.subtract(keys)
            for key in keys:
                if not self._inside[key]:
                    del self._inside[key]
            keys.clear()

        return leave

    def count(self) -> int:
        """Return how many are inside."""
        return self._inside["all", ""]


def is_loopback(address: str) -> bool:
    """Whether `address` is this machine; a name or nothing (a Unix socket) is taken for it."""
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return True
