"""What a wire format has to know."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import datetime
from typing import Protocol

from brain.message.cursor import Cursor
from brain.message.event import Event
from brain.message.frames import framed
from brain.message.snapshot import Snapshot

logger = logging.getLogger(__name__)


class WireFormat(Protocol):
    """
    How one kind of client is spoken to, without a socket and without a database.

    Every text it returns is one complete WebSocket message. `cursor` is the place in the log after
    what the client has been told, by which it could come back.
    """

    name: str
    """Under which an event keeps its rendering."""

    def greet(self, now: datetime, cursor: Cursor) -> str:
        """Return the first message of a connection."""
        ...

    def render(self, event: Event) -> str | None:
        """Return the message that tells of `event`; None if these clients are not told."""
        ...

    def answer(self, text: str, now: datetime, cursor: Cursor) -> str:
        """Return the reply to what a client said."""
        ...

    def heartbeat(self, now: datetime, cursor: Cursor) -> str | None:
        """Return what to say when there has been nothing to say for a while, if anything."""
        ...

    def reset(self, reason: str, now: datetime, cursor: Cursor) -> str | None:
        """Return how to say that what lies before `cursor` cannot be told, if there is a way."""
        ...

    def tell_snapshot(self, snapshot: Snapshot, now: datetime) -> Iterator[str]:
        """Yield the messages that tell what the tables hold, if there is a way."""
        ...


def frame(event: Event, wire_format: WireFormat) -> bytes | None:
    """Return `event` in `wire_format`, made once however many clients it goes to."""
    try:
        return event.frames[wire_format.name]
    except KeyError:
        try:
            text = wire_format.render(event)
            data = None if text is None else framed(text)
        except Exception:
            # What cannot be told to anybody must not keep everything else from being told.
            logger.exception("the event at %s cannot be told", event.cursor)
            data = None
        event.frames[wire_format.name] = data
        return data


def snapshot_frames(snapshot: Snapshot, wire_format: WireFormat, now: datetime) -> list[bytes]:
    """Return the messages that tell of `snapshot`, made once however many clients want it."""
    frames = snapshot.frames.get(wire_format.name)
    if frames is None:
        frames = [framed(text) for text in wire_format.tell_snapshot(snapshot, now)]
        snapshot.frames[wire_format.name] = frames
    return frames
