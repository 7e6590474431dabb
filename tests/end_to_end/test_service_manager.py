"""Brain under a service manager, as under systemd with `Type=notify`."""

from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import pytest

from tests.end_to_end.brain import PATIENCE_SECONDS, running_brain


@pytest.mark.parametrize("workers", [1, 2])
async def test_systemd_hears_that_brain_is_ready_lives_and_stops(
    tmp_path: Path, database: str, workers: int
) -> None:
    address = str(tmp_path / "notify")
    environment = {
        "NOTIFY_SOCKET": address,
        "WATCHDOG_USEC": "400000",
        "BRAIN_WORKERS": str(workers),
    }
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.setblocking(False)
        async with running_brain(tmp_path, "--database-url", database, **environment) as brain:
            await heard(manager, "READY=1")
            for _ in range(3):
                await heard(manager, "WATCHDOG=1")
            brain.process.send_signal(signal.SIGTERM)
            await heard(manager, "STOPPING=1")
            assert await brain.stopped() == 0


async def heard(manager: socket.socket, state: str) -> None:
    """Return once Brain has reported this."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while state not in (await asyncio.get_running_loop().sock_recv(manager, 4096)).decode():
            pass
