"""What a session needs of a transport, and what a transport calls in turn."""

from __future__ import annotations

from typing import Protocol

from brain.close_codes import CloseCode
from brain.hub.outgoing import Outgoing
from brain.message.rendering import Framing
from brain.session.session_counts import ABNORMAL


class Transport(Outgoing, Protocol):
    """
    The connection of one client. No call waits, and none fails.

    The end of a connection is reported by `Receiver.connection_lost`.
    """

    @property
    def framing(self) -> Framing:
        """How it delimits texts; the same object for all connections of its kind."""
        ...

    def sent_bytes(self) -> int | None:
        """Return how much was sent to the client so far; None if that is not known."""
        ...

    def close(self, code: CloseCode, reason: str) -> None:
        """Close the connection; abort it if the client does not."""
        ...


class Receiver(Protocol):
    """What a transport calls, one call at a time. No call waits."""

    @property
    def going_away_code(self) -> CloseCode:
        """The close code for when the server stops."""
        ...

    def message_received(self, message: str | bytes) -> None:
        """Handle a complete message of the client: text, or bytes."""
        ...

    def pause_writing(self) -> None:
        """Stop writing: the transport buffers, because the client reads more slowly."""
        ...

    def resume_writing(self) -> None:
        """Go on writing: the buffer is empty."""
        ...

    def connection_lost(self, code: int = ABNORMAL) -> None:
        """
        Clean up: the connection has ended, from either side. May be called again.

        `code` is the close code, of whichever side closed it.
        """
        ...


class NewSession(Receiver, Protocol):
    """A session that has not begun."""

    def open(self) -> None:
        """Begin."""
        ...
