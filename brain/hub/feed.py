"""A state of which only the newest counts, and those who are told it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from brain.errors import ConnectionEnded
from brain.hub.sending import send


@dataclass(eq=False, slots=True)
class Follower:
    """A client that is told the state of a feed."""

    send_now: Callable[[bytes], int]
    """Takes as many bytes of a frame as it can at once, and returns how many; may raise OSError."""
    write: Callable[[bytes], object]
    end: Callable[[ConnectionEnded], None]
    """Ends its connection; it leaves meanwhile."""
    told: str | None = None
    """The mark of the state that it was told last."""
    is_paused: bool = False


class Feed:
    """
    Keeps the newest state as a finished frame, and tells it to every follower once.

    Nothing is queued for anybody. Who does not read is told nothing until it does, and then the
    newest state, whatever it missed in between.
    """

    def __init__(self) -> None:
        self._frame = b""
        self._mark: str | None = None
        self._followers: set[Follower] = set()

    @property
    def is_heard(self) -> bool:
        return bool(self._followers)

    @property
    def mark(self) -> str | None:
        """That of the newest state; None as long as there is none."""
        return self._mark

    def follow(self, follower: Follower) -> None:
        """Take a follower in, and tell it the state if there is one."""
        self._followers.add(follower)
        self._catch_up(follower)

    def leave(self, follower: Follower) -> None:
        """Forget a follower; may be called again."""
        self._followers.discard(follower)

    def tell(self, frame: bytes, mark: str) -> None:
        """Tell a new state to everybody who reads; nothing if it has the mark of the former one."""
        if mark == self._mark:
            return
        self._frame, self._mark = frame, mark
        for follower in list(self._followers):
            if follower.is_paused:
                continue
            follower.told = mark
            send(frame, follower.send_now, follower.write)

    def pause(self, follower: Follower) -> None:
        """Tell a follower nothing until `drain` is called."""
        follower.is_paused = True

    def drain(self, follower: Follower) -> None:
        """Tell a follower that has read what it was told the newest state, if that is another."""
        follower.is_paused = False
        self._catch_up(follower)

    def end(self, reason: ConnectionEnded, *, only_untold: bool = False) -> None:
        """End the connections of all followers, or of those that were told nothing yet."""
        for follower in list(self._followers):
            if not only_untold or follower.told is None:
                self._followers.discard(follower)
                follower.end(reason)

    def _catch_up(self, follower: Follower) -> None:
        if self._mark is not None and follower.told != self._mark and not follower.is_paused:
            follower.told = self._mark
            follower.write(self._frame)
