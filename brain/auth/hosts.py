"""
By which names Brain may be addressed.

A page of another site can have its own name resolve to the address of Brain (DNS rebinding): to
the browser it is of the same origin then, and only the `Host` shows that it is not.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from brain.auth.keys import needs_tokens
from brain.auth.refusals import beginning, shown
from brain.errors import UsageError
from brain.log_events import HOST_REFUSED
from brain.log_limit import LimitedLog
from brain.settings import Settings, host_name, is_loopback_name

REFUSED = "this host is not allowed: see BRAIN_ALLOWED_HOSTS"

logger = logging.getLogger(__name__)


class Hosts:
    """Decides which `Host` a request may have, and logs the others."""

    def __init__(self, allowed: Sequence[str], *, has_loopback: bool = False) -> None:
        """`allowed` has names, `*.` and a name, or `*`; `has_loopback` adds those of loopback."""
        self._names = frozenset(allowed)
        self._has_loopback = has_loopback
        self._log = LimitedLog(logger)

    def allows(self, hosts: Sequence[str]) -> bool:
        """Return True if a request with these headers `Host` is for Brain; log it otherwise."""
        if self.has(hosts):
            return True
        host = beginning(", ".join(hosts)) if hosts else None
        text = "Host refused: set BRAIN_ALLOWED_HOSTS to be addressed by %s"
        self._log.log(HOST_REFUSED, str(host), text, shown(host), host=host)
        return False

    def has(self, hosts: Sequence[str]) -> bool:
        """Return True if a request with these headers `Host` is for Brain."""
        return "*" in self._names or (len(hosts) == 1 and self._is_allowed(hosts[0]))

    def _is_allowed(self, host: str) -> bool:
        name = host_name(host)
        if name is None:
            return False
        if name in self._names or (self._has_loopback and is_loopback_name(name)):
            return True
        parents = name.split(".")[1:]
        return any("*." + ".".join(parents[i:]) in self._names for i in range(len(parents)))


def hosts_of_embedded(settings: Settings, *, is_open: bool) -> Hosts:
    """
    Return the hosts of a Brain in another application, which alone knows where it listens.

    Unless the settings name some, one that needs no token is for this machine.
    """
    if is_open:
        return Hosts(settings.allowed_hosts, has_loopback=True)
    return Hosts(settings.allowed_hosts or ("*",))


def hosts_of(settings: Settings) -> Hosts:
    """
    Return the hosts by `settings`.

    Raises `UsageError` where every page of every site could read everything.
    """
    if is_loopback_name(host_name(settings.host)):
        return Hosts(settings.allowed_hosts, has_loopback=True)
    if not settings.allowed_hosts and not needs_tokens(settings):
        raise UsageError(
            f"Brain listens on {settings.host!r}, where others can reach it, and needs no token:"
            " set BRAIN_ALLOWED_HOSTS to the names that clients address it by, as"
            " brain.example.org, or require tokens (BRAIN_JWT_SECRET)"
        )
    return Hosts(settings.allowed_hosts or ("*",))
