"""
Where in the log a subscription is: from where it would resume.

Source: docs/protocol.md, "Resuming a subscription". There is one subscription on a connection.
"""

from __future__ import annotations

from brain.client.link import Frame


class Place:
    """The cursor after which everything is still to come, kept up with the frames."""

    def __init__(self, cursor: str | None, *, wants_snapshot: bool) -> None:
        self.cursor = cursor
        """None before the beginning, and within a snapshot."""
        self.is_live = False
        """True once the subscription has caught up with the connection."""
        self._wants_snapshot = wants_snapshot
        self._is_within_snapshot = False
        self._sub: int | None = None

    def concerns(self, frame: Frame) -> bool:
        """Return True if a frame with an `op` is of this subscription."""
        return "op" in frame and frame.get("sub", self._sub) == self._sub

    def move(self, frame: Frame, *, is_resumed: bool) -> None:
        """Note a frame that came; `is_resumed` says that `subscribe` had a place."""
        match frame.get("type"):
            case "subscribed":
                self._begin(frame, is_resumed)
            case "ping" | "pong" | "until":
                if self.is_live and not self._is_within_snapshot:
                    self.cursor = frame.get("cursor", self.cursor)
            case None if self.concerns(frame):
                self._change(frame)

    def _begin(self, frame: Frame, is_resumed: bool) -> None:
        self._sub = frame["sub"]
        if "replaces" in frame:
            return
        self._is_within_snapshot = "cursor" not in frame
        self.cursor = frame.get("cursor")
        self.is_live = not is_resumed and not self._wants_snapshot

    def _change(self, frame: Frame) -> None:
        match frame["op"]:
            case "reset" if self._wants_snapshot:
                self._is_within_snapshot, self.is_live = True, False
                self.cursor = None
                return
            case "snapshot-end":
                self._is_within_snapshot = False
            case "live":
                self.is_live = True
            case "commit" if "sub" not in frame and not self.is_live:
                return
        if not self._is_within_snapshot:
            self.cursor = frame.get("cursor", self.cursor)
