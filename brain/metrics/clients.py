"""Metrics of clients: who is connected, who has left and why, who was refused."""

from __future__ import annotations

from collections import Counter as Counts
from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from brain.auth.policy import AuthorityStatistics
from brain.close_codes import CloseCode
from brain.metrics.followed import Followed
from brain.presence.tracker import Counts as PresenceCounts
from brain.session.session_counts import ABNORMAL, NO_CODE, SessionCounts
from brain.transport.refusal_counts import RefusalCounts
from brain.transport.websocket_frames import WEBSOCKET_FRAMING

# Any other is a client's invention.
KNOWN_CODES = frozenset({1000, NO_CODE, ABNORMAL, *CloseCode})
OTHER = "other"


def transport_of(framing: str) -> str:
    return "websocket" if framing == WEBSOCKET_FRAMING.name else "sse"


class ClientMetrics:
    """Shows the sessions of a process, and those who did not become one."""

    def __init__(self, registry: CollectorRegistry, channels: Sequence[str]) -> None:
        """`channels` are those that are shown by name."""
        self._channels = channels
        labels = ["format", "transport"]
        self._connections = Gauge(
            "brain_connections",
            "Clients that are connected.",
            labels,
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._opened = Followed(
            Counter(
                "brain_connections_opened_total",
                "Clients that were admitted.",
                labels,
                registry=registry,
            )
        )
        self._closed = Followed(
            Counter(
                "brain_connections_closed_total",
                "Connections that have ended, by close code; 1006: without one.",
                ["code"],
                registry=registry,
            )
        )
        self._refused = Followed(
            Counter(
                "brain_handshakes_refused_total",
                "WebSocket handshakes, and requests of pages and streams, that were refused.",
                ["status", "reason"],
                registry=registry,
            )
        )
        self._responses = Followed(
            Counter(
                "brain_http_responses_total",
                "Answers to HTTP requests, by status.",
                ["status"],
                registry=registry,
            )
        )
        self._tokens_refused = Followed(
            Counter(
                "brain_tokens_refused_total",
                "Tokens and tickets that were refused.",
                ["reason"],
                registry=registry,
            )
        )
        self._jwks_age = Gauge(
            "brain_jwks_age_seconds",
            "Since when the keys at BRAIN_JWKS_URL have not been fetched; 0 if never, or unset.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._jwks_failures = Followed(
            Counter(
                "brain_jwks_fetches_failed_total",
                "Attempts to fetch the keys at BRAIN_JWKS_URL that failed.",
                registry=registry,
            )
        )
        self._users = Gauge(
            "brain_users",
            "Users with a connection; one on several processes counts on each.",
            registry=registry,
            multiprocess_mode="livesum",
        )
        self._presence_cut_off = Gauge(
            "brain_presence_cut_off",
            "1 while a process cannot report its clients to the others.",
            registry=registry,
            multiprocess_mode="livemax",
        )
        self._subscribers = Gauge(
            "brain_channel_subscribers",
            "Subscribers of a channel of BRAIN_METRICS_CHANNELS.",
            ["channel"],
            registry=registry,
            multiprocess_mode="livesum",
        )

    def sample_sessions(self, counts: SessionCounts) -> None:
        # A sum over no clients is to be 0, and not missing.
        by_transport: Counts[tuple[str, str]] = Counts({("brain.v1", "websocket"): 0})
        opened: Counts[tuple[str, str]] = Counts()
        for (wire_format, framing), count in counts.opened.items():
            key = wire_format, transport_of(framing)
            opened[key] += count
            by_transport[key] += counts.open[wire_format, framing]
        for key, count in by_transport.items():
            self._connections.labels(*key).set(count)
            self._opened.follow(opened[key], *key)
        self._closed.follow_all(closed_by_label(counts.closed))

    def sample_refusals(self, counts: RefusalCounts) -> None:
        for (status, reason), count in counts.handshakes.items():
            self._refused.follow(count, str(status), reason)
        for status, count in counts.responses.items():
            self._responses.follow(count, str(status))

    def sample_authority(self, statistics: AuthorityStatistics) -> None:
        self._tokens_refused.follow_all({**statistics.refused})
        self._jwks_age.set(statistics.key_set.age_seconds)
        self._jwks_failures.follow(statistics.key_set.failed_fetches)

    def sample_tickets(self, refused: int) -> None:
        self._tokens_refused.follow(refused, "ticket")

    def sample_presence(self, counts: PresenceCounts, *, is_cut_off: bool) -> None:
        self._users.set(counts.users)
        self._presence_cut_off.set(is_cut_off)
        for channel in self._channels:
            self._subscribers.labels(channel).set(counts.channels.get(channel, 0))


def closed_by_label(closed: Mapping[int, int]) -> Mapping[str, int]:
    """Return how many connections have ended by each code; those of clients' own are one."""
    counts: Counts[str] = Counts({str(int(code)): 0 for code in KNOWN_CODES})
    for code, count in closed.items():
        counts[str(int(code)) if code in KNOWN_CODES else OTHER] += count
    return counts
