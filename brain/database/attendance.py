"""The record of who is connected to this process, and of what the others do not know of it yet."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple
from uuid import UUID

STATUSES = ("online", "away", "busy")
"""What a user may state."""

HERE = "here"
GONE = "gone"
STILL = "still "
"""What is said of a user, beside a status; the SQL function brain.follow_presence says more."""

LONGEST_USER = 255

# When so much is waiting to be told, all is told anew instead of one thing after the other.
MOST_ACTS = 50_000


@dataclass(eq=False, slots=True)
class Visit:
    """A connection of a client."""

    connection_id: UUID
    user: str | None
    """None for a stranger."""
    is_listed: bool
    """Whether its id may be listed among those who hear a channel."""
    channels: frozenset[str]


class Counts(NamedTuple):
    """How many there are in this process."""

    clients: int
    authenticated: int
    """Of the clients, those with a user."""
    users: int
    channels: Mapping[str, int]
    """How many clients hear which; it goes on changing."""


class Telling(NamedTuple):
    """What the others are to be told."""

    is_all: bool
    """Whether this is all there is, instead of what has changed."""
    channels: dict[str, int]
    acts: list[tuple[str, str]]
    """Users with `HERE`, `GONE`, a status, or `STILL` and a status; in order."""
    connections: dict[UUID, frozenset[str] | None]
    """The channels of those that may be listed; None once they have ended."""


class Attendance:
    """
    Knows who is here, and gathers what has changed since that was taken last.

    Nothing is awaited here, and no call takes longer the more clients there are.
    """

    def __init__(self) -> None:
        self.when_urgent: Callable[[], None] = lambda: None
        """Is called when there is something that should be told soon."""
        self._visits: set[Visit] = set()
        self._listed: dict[UUID, Visit] = {}
        self._authenticated = 0
        self._connections: Counter[str] = Counter()
        """Of each user who is here."""
        self._channels: Counter[str] = Counter()
        self._statuses: dict[str, str] = {}
        """What each user has stated last, if anything."""

        self._is_all_untold = True
        self._acts: deque[tuple[str, str]] = deque()
        self._unheard: set[str] = set()
        """While all is untold: the users whose last statement nobody may have heard."""
        self._changed_channels: set[str] = set()
        self._changed_visits: set[UUID] = set()

    @property
    def is_urgent(self) -> bool:
        """Whether there is something to tell of users, or everything."""
        return self._is_all_untold or bool(self._acts)

    @property
    def has_changed(self) -> bool:
        """Whether there is anything to tell but how many clients there are."""
        return self.is_urgent or bool(self._changed_channels) or bool(self._changed_visits)

    def counts(self) -> Counts:
        return Counts(
            len(self._visits),
            self._authenticated,
            len(self._connections),
            MappingProxyType(self._channels),
        )

    def listed(self, channel: str) -> list[UUID]:
        """Return the ids that may be listed of those who hear `channel`; looks at all of them."""
        return sorted(id for id, visit in self._listed.items() if channel in visit.channels)

    def arrive(self, visit: Visit) -> None:
        """Note a connection that has begun."""
        self._visits.add(visit)
        self._count_channels(visit.channels, 1)
        if visit.is_listed:
            self._listed[visit.connection_id] = visit
            self._note_visit(visit)
        if visit.user is None:
            return
        self._authenticated += 1
        if is_tellable_user(visit.user):
            self._connections[visit.user] += 1
            if self._connections[visit.user] == 1:
                self._note(visit.user, HERE)

    def leave(self, visit: Visit) -> None:
        """Note that a connection has ended, unless that was noted before."""
        if visit not in self._visits:
            return
        self._visits.remove(visit)
        self._count_channels(visit.channels, -1)
        if visit.is_listed:
            del self._listed[visit.connection_id]
            self._note_visit(visit)
        if visit.user is None:
            return
        self._authenticated -= 1
        if is_tellable_user(visit.user):
            self._connections[visit.user] -= 1
            if not self._connections[visit.user]:
                del self._connections[visit.user]
                self._statuses.pop(visit.user, None)
                self._note(visit.user, GONE)

    def change(self, visit: Visit, channels: frozenset[str]) -> None:
        """Note what a connection hears from now on, unless it has ended."""
        if visit not in self._visits:
            return
        self._count_channels(channels - visit.channels, 1)
        self._count_channels(visit.channels - channels, -1)
        visit.channels = channels
        if visit.is_listed:
            self._note_visit(visit)

    def state(self, user: str, status: str) -> None:
        """
        Note how a user says he is, if he is here.

        Raises `ValueError` if that is not one of `STATUSES`.
        """
        if status not in STATUSES:
            raise ValueError(f"a status is one of {', '.join(STATUSES)}, not {status!r}")
        if user in self._connections:
            self._statuses[user] = status
            self._note(user, status)

    def take(self, most_acts: int) -> Telling:
        """
        Return what is to be told next; who is told all hears first of everybody who is here.

        Of the rest of what users did, at most `most_acts` are taken.
        """
        is_all, self._is_all_untold = self._is_all_untold, False
        acts: list[tuple[str, str]] = []
        if is_all:
            acts = [(user, HERE) for user in self._connections]
            self._acts.extend(
                (user, status if user in self._unheard else STILL + status)
                for user, status in self._statuses.items()
            )
            self._unheard.clear()
        channels: Iterable[str] = self._channels if is_all else self._changed_channels
        visits: Iterable[UUID] = self._listed if is_all else self._changed_visits
        telling = Telling(
            is_all,
            {name: self._channels[name] for name in channels},
            acts + [self._acts.popleft() for _ in range(min(most_acts, len(self._acts)))],
            {id: self._listed[id].channels if id in self._listed else None for id in visits},
        )
        self._changed_channels.clear()
        self._changed_visits.clear()
        return telling

    def begin_anew(self, lost: Telling | None = None) -> None:
        """Have all told anew; `lost` is what was taken and perhaps not heard."""
        acts = chain(lost.acts if lost else (), self._acts)
        self._unheard.update(user for user, act in acts if act in STATUSES)
        self._is_all_untold = True
        self._acts.clear()
        self._changed_channels.clear()
        self._changed_visits.clear()
        self.when_urgent()

    def _note(self, user: str, act: str) -> None:
        if not self._is_all_untold:
            self._acts.append((user, act))
            if len(self._acts) > MOST_ACTS:
                self.begin_anew()
        elif act in STATUSES:
            self._unheard.add(user)
        else:
            self._unheard.discard(user)
        self.when_urgent()

    def _count_channels(self, channels: Iterable[str], change: int) -> None:
        for channel in channels:
            if is_text(channel):
                self._channels[channel] += change
                if not self._channels[channel]:
                    del self._channels[channel]
                if not self._is_all_untold:
                    self._changed_channels.add(channel)

    def _note_visit(self, visit: Visit) -> None:
        if not self._is_all_untold:
            self._changed_visits.add(visit.connection_id)


def is_tellable_user(user: str) -> bool:
    return len(user) <= LONGEST_USER and is_text(user)


def is_text(value: str) -> bool:
    """Whether PostgreSQL can hold it: one that cannot be told must not keep all others untold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value
