"""How many clients were refused, and how requests were answered."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from brain.errors import TooManyConnections

IN_SCOPE = "brain.refusal_counts"
"""The name in the scope of a request under which they are found."""

QUOTAS: Mapping[str, str] = {
    "all": "max_connections",
    "address": "max_connections_per_address",
    "user": "max_connections_per_user",
    "anonymous": "max_anonymous_connections",
    "filters": "filters",
}
"""The reason of a refusal by what is used up: the setting, as far as there is one."""
REASONS: Mapping[int, str] = {
    400: "request",
    401: "token",
    403: "access",
    404: "path",
    429: "quota",
    503: "unavailable",
}
"""That of all others, by status."""


# Known from the beginning: of a counter that appears with its first number, nothing tells that it
# has grown.
EXPECTED = (
    *((403, "origin"), (403, "host"), (401, "token"), (503, "unavailable")),
    *((503, QUOTAS["all"]), (429, QUOTAS["address"]), (429, QUOTAS["user"])),
    *((503, QUOTAS["anonymous"]), (429, QUOTAS["filters"])),
)


class RefusalCounts:
    """Plain numbers of a process, which only grow."""

    def __init__(self) -> None:
        self.handshakes: Counter[tuple[int, str]] = Counter(dict.fromkeys(EXPECTED, 0))
        """Those refused, by status and reason: WebSockets, streams, and requests of pages."""
        self.responses: Counter[int] = Counter()
        """Answers to HTTP requests, by status."""


def note_refusal(scope: Mapping[str, Any], status: int, reason: str | None = None) -> None:
    """Count a refusal, where that is counted."""
    counts: RefusalCounts | None = scope.get(IN_SCOPE)
    if counts is not None:
        counts.handshakes[status, reason or REASONS.get(status, "other")] += 1


def quota_reason(refusal: TooManyConnections) -> str:
    return QUOTAS.get(refusal.quota, "quota")
