"""Between a conversation and the connection that carries it."""

from __future__ import annotations

from typing import Protocol

# The name in `scope["extensions"]` under which an endpoint finds a connection that it can adopt.
EXTENSION = "brain.frames"


class Outlet(Protocol):
    """What goes out to a client. Nothing here waits, and nothing fails: its end is told of."""

    def write(self, frames: bytes) -> None:
        """Send finished WebSocket frames."""
        ...

    def send_now(self, frames: bytes) -> int:
        """
        Take as many bytes of finished frames as can be sent at once, and return how many.

        Only to be called as long as the hearer has not been told to pause; the rest is for `write`.
        An `OSError` says that it takes none.
        """
        ...

    def close(self, code: int, reason: str) -> None:
        """Say goodbye; cut the connection if the client does not."""
        ...


class Hearer(Protocol):
    """What an outlet calls, one at a time. Nothing here waits either."""

    @property
    def going_away_code(self) -> int:
        """With which the client is closed when the server stops."""
        ...

    def hear(self, message: str | bytes) -> None:
        """Take a message of the client, of text or of bytes."""
        ...

    def pause(self) -> None:
        """Take note that the client reads more slowly than it is written to."""
        ...

    def drain(self) -> None:
        """Take note that it has caught up."""
        ...

    def leave(self) -> None:
        """Take note that the connection is over, whoever ended it."""
        ...
