"""What a wire format does, with defaults: a new one needs a name, `render` and `receive`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from pydantic import BaseModel

from brain.close_codes import CloseCode
from brain.message.commands import Command
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.matching import Match
from brain.message.snapshot import Part
from brain.message.subscription_set import SubscriptionSet
from brain.message.topic_handle import TopicHandle


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the first messages of a connection may say."""

    now: datetime
    cursor: Cursor
    connection_id: UUID
    user: str | None
    """The user of the client's token; None without a token, or with an invalid one."""


class WireFormat(ABC):
    """
    How one kind of client is spoken to, sans I/O.

    Every text that a method returns is one complete message; None means that these clients have no
    such message. `cursor` is the place in the log after everything that the client was sent.
    """

    name: str
    """Unique: rendered messages are cached under it."""
    heartbeat_seconds: float | None = None
    """How often `heartbeat` is sent to every client; None: only to clients that were sent nothing
    for `BRAIN_HEARTBEAT_SECONDS`."""
    client_timeout_seconds: float | None = None
    """A client that sends nothing for so long is closed with 4408; None: it may be silent."""
    going_away_code: CloseCode = CloseCode.SERVICE_RESTART
    """With which these clients are closed when the server stops."""
    sent_models: Sequence[type[BaseModel]] = ()
    """The models of all messages, for documents."""
    received_models: Sequence[type[BaseModel]] = ()
    """The models of all client frames, for documents."""

    @abstractmethod
    def render(self, event: Event) -> str | None:
        """
        Return the message for `event`; None if these clients do not get it.

        Raises `RowNotShown` for a row with values that these clients have no word for: only a table
        that Brain did not create can hold one.
        """

    @abstractmethod
    def receive(self, text: str, now: datetime, cursor: Callable[[], Cursor]) -> Sequence[Command]:
        """Return the commands in a client frame; `cursor` is called only where it is needed."""

    def greet(self, welcome: Welcome) -> Iterable[str]:
        """Return the first messages of a connection."""
        return ()

    def render_leaving(self, event: Event) -> str | None:
        """Return the message that a row no longer matches a filter since `event`."""
        return None

    def render_part(self, part: Part, now: datetime) -> str | None:
        """Return the message with a part of the rows of a snapshot."""
        return None

    def confirm(self, command: Command, now: datetime) -> str | None:
        """Return the message that `command` has been carried out."""
        return None

    def refuse(self, reason: str, now: datetime) -> str | None:
        """Return the message that a frame was malformed or not allowed."""
        return None

    def add_cursor(self, text: str, cursor: Callable[[], Cursor]) -> str:
        """Return a confirmation or refusal with the cursor, if messages of this format have one."""
        return text

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        """Return the message that the connection is alive."""
        return None

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        """Return the message that what lies before `cursor` cannot be sent."""
        return None


class SubscriptionFormat(WireFormat):
    """A wire format whose messages name the subscription that they are for."""

    has_cursors = True
    """False: of its messages, a client may resume after the end of a snapshot alone."""

    @abstractmethod
    def render_for(
        self, handle: TopicHandle, event: Event, match: Match, *, is_last: bool
    ) -> str | None:
        """
        Return the message for the subscribers of a topic; None if there is none.

        With `is_last`, nothing of the event's transaction follows for them.
        """

    @abstractmethod
    def render_commit(self, event: Event, subscriptions: SubscriptionSet) -> str:
        """
        Return the message that the transaction of `event`, its last one, has ended.

        `subscriptions` are those of the clients that get it.
        """

    @abstractmethod
    def render_page(self, handle: TopicHandle, rows: Iterable[tuple[str, str]]) -> str:
        """Return the message with rows of a snapshot, each with the JSON of its key before it."""

    @abstractmethod
    def render_snapshot_end(self, handle: TopicHandle, cursor: Cursor) -> str:
        """Return the message that a snapshot is complete."""

    def render(self, event: Event) -> str | None:
        return None  # every message is for a subscription
