"""What a wire format has to know."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol
from uuid import UUID

from brain.message.acts import Act
from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.frames import framed
from brain.message.snapshot import Snapshot
from brain.message.topic import Interest, Told

logger = logging.getLogger(__name__)


GOING_AWAY, SERVICE_RESTART = 1001, 1012


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the first messages of a connection may tell."""

    now: datetime
    cursor: Cursor
    connection_id: UUID
    user: str | None
    """Whose token it is that came with the client; None if there was none, or no good one."""


class WireFormat(Protocol):
    """
    How one kind of client is spoken to, without a socket and without a database.

    Every text it returns is one complete WebSocket message. `cursor` is the place in the log after
    what the client has been told, by which it could come back.
    """

    name: str
    """Under which an event keeps its rendering."""
    pulse_seconds: float | None
    """How often `pulse` is said to everybody, whatever else is; None: where it has been quiet."""
    silence_seconds: float | None
    """A client that says nothing for so long is disconnected; None: it may be silent."""
    going_away_code: int
    """With which these clients are closed when the server stops."""

    def greet(self, welcome: Welcome) -> Iterator[str]:
        """Yield the first messages of a connection."""
        ...

    def render(self, event: Event) -> str | None:
        """Return the message that tells of `event`; None if these clients are not told."""
        ...

    def render_leaving(self, event: Event) -> str | None:
        """Return the message that a row does not match a filter any more since `event`."""
        ...

    def hear(self, text: str, now: datetime, cursor: Cursor) -> Sequence[Act]:
        """Return what comes of what a client said."""
        ...

    def confirm(self, act: Act, now: datetime) -> str | None:
        """Return the message that `act` has been carried out, if it is told."""
        ...

    def reject(self, why: str, now: datetime) -> str | None:
        """Return the message that something was refused or not understood, if it is told."""
        ...

    def pulse(self, now: datetime, cursor: Cursor) -> str | None:
        """Return what says that the connection lives, if anything."""
        ...

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        """Return how to say that what lies before `cursor` cannot be told, if there is a way."""
        ...

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        """Yield the messages that tell what the tables hold, if there is a way."""
        ...


def frame(event: Event, wire_format: WireFormat, told: Told = Told.AS_IT_IS) -> bytes | None:
    """Return `event` in `wire_format`, made once however many clients it goes to."""
    is_leaving = told is Told.AS_LEAVING
    name = f"{wire_format.name}, leaving" if is_leaving else wire_format.name
    try:
        return event.frames[name]
    except KeyError:
        try:
            text = wire_format.render_leaving(event) if is_leaving else wire_format.render(event)
            data = None if text is None else framed(text)
        except Exception:
            # What cannot be told to anybody must not keep everything else from being told.
            logger.exception("the event at %s cannot be told", event.cursor)
            data = None
        event.frames[name] = data
        return data


def frames_for(
    events: Iterable[Event], wire_format: WireFormat, interest: Interest, user: str | None
) -> Iterator[bytes]:
    """Yield what a `user` with this interest is told of `events`."""
    for event in events:
        if event.audience is not None and event.audience != user:
            continue
        told = interest.told(event)
        data = None if told is None else frame(event, wire_format, told)
        if data is not None:
            yield data


def snapshot_frames(snapshot: Snapshot, wire_format: WireFormat, now: datetime) -> list[bytes]:
    """Return the messages that tell of `snapshot`, made once however many clients want it."""
    frames = snapshot.frames.get(wire_format.name)
    if frames is None:
        frames = [framed(text) for text in wire_format.tell_snapshot(snapshot, now)]
        snapshot.frames[wire_format.name] = frames
    return frames
