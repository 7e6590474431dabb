"""How much a hub has had written to its subscribers."""

from __future__ import annotations


class Traffic:
    """
    Counts what clients are sent of the log: live, from the ring, and from the log itself.

    Plain numbers, added to once for all members of a cohort: this is on the way of every event.
    """

    __slots__ = ("bytes", "log_resumes", "messages", "restarts", "ring_resumes")

    def __init__(self) -> None:
        self.messages = 0
        """Each counts once for every client."""
        self.bytes = 0
        """Of their frames."""
        self.ring_resumes = 0
        """How often a client came back with a cursor that the ring holds."""
        self.log_resumes = 0
        """And with one that is older."""
        self.restarts = 0
        """How often a client had to load its state again."""

    def add(self, messages: int, size_bytes: int) -> None:
        self.messages += messages
        self.bytes += size_bytes

    def note_resume(self, *, is_in_ring: bool) -> None:
        if is_in_ring:
            self.ring_resumes += 1
        else:
            self.log_resumes += 1
