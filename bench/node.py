"""A Brain to measure: in a separate process, with a client that records its messages."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.client import Receiver, connected_receiver
from bench.processes import cpu_seconds, forget_peak, peak_resident_bytes, resident_bytes
from bench.server import Server
from tests.end_to_end.brain import running_brain


@dataclass(frozen=True)
class Node:
    process_id: int
    receiver: Receiver

    @property
    def cpu_seconds(self) -> float:
        return cpu_seconds(self.process_id)

    @property
    def client_cpu_seconds(self) -> float:
        """Processor time of this process, which is the client."""
        return cpu_seconds(os.getpid())

    @property
    def resident_bytes(self) -> int:
        return resident_bytes(self.process_id)

    @property
    def peak_resident_bytes(self) -> int:
        """The most since `forget_peak`, or since it was started."""
        return peak_resident_bytes(self.process_id)

    def forget_peak(self) -> None:
        forget_peak(self.process_id)


@asynccontextmanager
async def running_node(
    server: Server, folder: Path, settings: Mapping[str, str] = {}
) -> AsyncIterator[Node]:
    """Run a Brain with these settings until the context ends."""
    async with (
        running_brain(folder, "--database-url", server.url, **settings) as brain,
        connected_receiver(brain.port) as receiver,
    ):
        yield Node(brain.process.pid, receiver)
