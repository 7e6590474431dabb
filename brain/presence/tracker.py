"""Who is connected to this process, and what of that has not been reported to the others yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

PRESENCE_STATUSES = ("online", "away", "busy", "offline")
"""What a user may set; `offline`: to appear so while connected."""

CONNECTED = "connected"
DISCONNECTED = "disconnected"
RESTATED = "restated "
"""Changes of a user, beside a status: the SQL function brain.apply_presence documents them."""

LONGEST_USER = 255
# As publishing has it: on a longer one nothing is ever sent.
LONGEST_CHANNEL = 255
# Clients choose the names of channels: this many are counted for the other processes, and listed.
MOST_REPORTED_CHANNELS = 10_000

# With more waiting changes than this, the whole state is reported instead.
MOST_CHANGES = 50_000


@dataclass(eq=False, slots=True)
class ClientInfo:
    """A connection of a client."""

    connection_id: UUID
    user: str | None
    """None for an anonymous client."""
    is_listed: bool
    """True if its id may be listed among the subscribers of a channel."""
    channels: frozenset[str]


class Counts(NamedTuple):
    """The numbers of this process."""

    clients: int
    authenticated: int
    """Of the clients, those with a user."""
    users: int
    channels: Mapping[str, int]
    """How many subscribers each channel has; a live view."""


class PresenceUpdate(NamedTuple):
    """What is reported to the other processes."""

    is_all: bool
    """True if it is the whole state, instead of what has changed."""
    channels: dict[str, int]
    changes: list[tuple[str, str]]
    """Users with a status, `CONNECTED`, `DISCONNECTED`, or `RESTATED` and a status; in order."""
    connections: dict[UUID, frozenset[str] | None]
    """The channels of those that may be listed; None once they have ended."""


class PresenceTracker:
    """
    Knows who is connected, and collects what has changed since the last update.

    Pure: it awaits nothing, and no call takes longer the more clients there are.
    """

    def __init__(self) -> None:
        self.on_urgent: Callable[[], None] = lambda: None
        """Called when there is something to report soon."""
        self._clients: set[ClientInfo] = set()
        self._listed: dict[UUID, ClientInfo] = {}
        self._authenticated = 0
        self._connections: Counter[str] = Counter()
        """Of each connected user."""
        self._channels: Counter[str] = Counter()
        self._statuses: dict[str, str] = {}
        """What each user has set last, if anything."""

        self._is_all_unreported = True
        self._changes: deque[tuple[str, str]] = deque()
        self._unreported: set[str] = set()
        """While everything is unreported: users with a status that may not have reached the
        database."""
        self._changed_channels: set[str] = set()
        self._reported_channels: set[str] = set()
        """Those that the other processes know of."""
        self._changed_clients: set[UUID] = set()

    @property
    def is_urgent(self) -> bool:
        """True if there are changes of users to report, or the whole state."""
        return self._is_all_unreported or bool(self._changes)

    @property
    def has_changed(self) -> bool:
        """True if there is anything to report beside the number of clients."""
        return self.is_urgent or bool(self._changed_channels) or bool(self._changed_clients)

    def counts(self) -> Counts:
        return Counts(
            len(self._clients),
            self._authenticated,
            len(self._connections),
            MappingProxyType(self._channels),
        )

    def listed(self, channel: str) -> list[UUID]:
        """Return the ids of the subscribers of `channel` that may be listed; a full scan."""
        return sorted(id for id, client in self._listed.items() if channel in client.channels)

    def add(self, client: ClientInfo) -> None:
        """Add a connection."""
        self._clients.add(client)
        self._count_channels(client.channels, 1)
        if client.is_listed:
            self._listed[client.connection_id] = client
            self._note_client(client)
        if client.user is None:
            return
        self._authenticated += 1
        if is_reportable_user(client.user):
            self._connections[client.user] += 1
            if self._connections[client.user] == 1:
                self._note(client.user, CONNECTED)

    def remove(self, client: ClientInfo) -> None:
        """Remove a connection; may be called again."""
        if client not in self._clients:
            return
        self._clients.remove(client)
        self._count_channels(client.channels, -1)
        if client.is_listed:
            del self._listed[client.connection_id]
            self._note_client(client)
        if client.user is None:
            return
        self._authenticated -= 1
        if is_reportable_user(client.user):
            self._connections[client.user] -= 1
            if not self._connections[client.user]:
                del self._connections[client.user]
                self._statuses.pop(client.user, None)
                self._note(client.user, DISCONNECTED)

    def change(self, client: ClientInfo, channels: frozenset[str]) -> None:
        """Replace the channels of a connection, unless it has ended."""
        if client not in self._clients:
            return
        self._count_channels(channels - client.channels, 1)
        self._count_channels(client.channels - channels, -1)
        client.channels = channels
        if client.is_listed:
            self._note_client(client)

    def set_status(self, user: str, status: str) -> None:
        """
        Set the status of a user who is connected.

        Raises `ValueError` if that is not one of `PRESENCE_STATUSES`.
        """
        if status not in PRESENCE_STATUSES:
            raise ValueError(f"a status is one of {', '.join(PRESENCE_STATUSES)}, not {status!r}")
        if user in self._connections:
            self._statuses[user] = status
            self._note(user, status)

    def take_update(self, most_changes: int) -> PresenceUpdate:
        """
        Return the next update; one of the whole state begins with every connected user.

        Of all other changes of users, it has at most `most_changes`.
        """
        is_all, self._is_all_unreported = self._is_all_unreported, False
        changes: list[tuple[str, str]] = []
        if is_all:
            changes = [(user, CONNECTED) for user in self._connections]
            self._changes.extend(
                (user, status if user in self._unreported else RESTATED + status)
                for user, status in self._statuses.items()
            )
            self._unreported.clear()
        clients: Iterable[UUID] = self._listed if is_all else self._changed_clients
        update = PresenceUpdate(
            is_all,
            self._take_channels(is_all),
            changes
            + [self._changes.popleft() for _ in range(min(most_changes, len(self._changes)))],
            {id: self._channels_of(id) for id in clients},
        )
        self._changed_clients.clear()
        return update

    def _take_channels(self, is_all: bool) -> dict[str, int]:
        """Return the counts to report; of names that come on top of the most, none."""
        if is_all:
            self._reported_channels.clear()
        reported = self._reported_channels
        counts: dict[str, int] = {}
        # Those that have no subscribers any more come first, and make room.
        changed: Iterable[str] = (
            self._channels
            if is_all
            else sorted(self._changed_channels, key=lambda name: self._channels[name] > 0)
        )
        for name in changed:
            count = self._channels[name]
            if name in reported or (count and len(reported) < MOST_REPORTED_CHANNELS):
                counts[name] = count
                (reported.add if count else reported.discard)(name)
        self._changed_channels.clear()
        return counts

    def _channels_of(self, id: UUID) -> frozenset[str] | None:
        client = self._listed.get(id)
        if client is None:
            return None
        return frozenset(filter(is_reportable_channel, client.channels))

    def report_everything(self, lost: PresenceUpdate | None = None) -> None:
        """Report the whole state next; `lost` is the update that may not have arrived."""
        changes = chain(lost.changes if lost else (), self._changes)
        self._unreported.update(user for user, change in changes if change in PRESENCE_STATUSES)
        self._is_all_unreported = True
        self._changes.clear()
        self._changed_channels.clear()
        self._changed_clients.clear()
        self.on_urgent()

    def _note(self, user: str, change: str) -> None:
        if not self._is_all_unreported:
            self._changes.append((user, change))
            if len(self._changes) > MOST_CHANGES:
                self.report_everything()
        elif change in PRESENCE_STATUSES:
            self._unreported.add(user)
        else:
            self._unreported.discard(user)
        self.on_urgent()

    def _count_channels(self, channels: Iterable[str], change: int) -> None:
        for channel in channels:
            if is_reportable_channel(channel):
                self._channels[channel] += change
                if not self._channels[channel]:
                    del self._channels[channel]
                if not self._is_all_unreported:
                    self._changed_channels.add(channel)

    def _note_client(self, client: ClientInfo) -> None:
        if not self._is_all_unreported:
            self._changed_clients.add(client.connection_id)


def is_reportable_user(user: str) -> bool:
    return len(user) <= LONGEST_USER and is_text(user)


def is_reportable_channel(name: str) -> bool:
    return len(name) <= LONGEST_CHANNEL and is_text(name)


def is_text(value: str) -> bool:
    """Return True if PostgreSQL can store it: a text that it cannot must not stop the report."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
