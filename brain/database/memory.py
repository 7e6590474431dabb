"""The memory that snapshots may take, of all clients together."""

from __future__ import annotations

import asyncio
import sys

from brain.errors import SnapshotTooLarge


class Memory:
    """A number of bytes; what one snapshot takes of it is a `Reservation`."""

    def __init__(self, most_bytes: int) -> None:
        self.most_bytes = most_bytes
        self.free = most_bytes
        self.releases = 0
        """How often some was given back."""
        self._released = asyncio.Event()

    async def released(self, releases: int) -> None:
        """Return once some was given back more often than `releases`."""
        while self.releases <= releases:
            self._released.clear()
            await self._released.wait()

    def give_back(self, size: int) -> None:
        self.free += size
        self.releases += 1
        self._released.set()


class NoMemory(Exception):
    """Other snapshots take the memory."""

    def __init__(self, releases: int) -> None:
        super().__init__()
        self.releases = releases
        """How often some had been given back by then."""


class Reservation:
    """The memory of the rows of one snapshot, given back once no client has the snapshot."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.bytes = 0

    @property
    def most_bytes(self) -> int:
        return self._memory.most_bytes

    def take(self, row: str) -> None:
        """Reserve the memory of a row. Raises `SnapshotTooLarge` and `NoMemory`."""
        size = sys.getsizeof(row) + 8  # for its place in the list
        self.bytes += size
        self._memory.free -= size
        if self.bytes > self.most_bytes:
            raise self.too_large()
        if self._memory.free < 0:
            raise NoMemory(self._memory.releases)

    def too_large(self) -> SnapshotTooLarge:
        return SnapshotTooLarge(
            f"the tables take more than {self.most_bytes} bytes, which is as much as"
            " BRAIN_SNAPSHOT_BYTES allows"
        )

    def release(self, but: int = 0) -> None:
        """Give back everything, or all but so many bytes."""
        size, self.bytes = self.bytes - but, but
        if size:
            self._memory.give_back(size)

    def __del__(self) -> None:
        self.release()
