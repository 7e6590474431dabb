from __future__ import annotations

import asyncio
import signal
import socket
from pathlib import Path

import asyncpg
import pytest
from websockets.exceptions import ConnectionClosed

from tests.end_to_end.brain import get, message, running_brain


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_every_client_is_told_to_come_back_and_the_process_exits_with_0(
    tmp_path: Path, database: str, sign: signal.Signals
) -> None:
    async with running_brain(tmp_path, "--database-url", database) as brain:
        async with brain.client() as one, brain.client() as other:
            brain.process.send_signal(sign)

            for client in (one, other):
                with pytest.raises(ConnectionClosed) as closed:
                    await message(client)
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
            assert await brain.stopped() == 0
    assert "Traceback" not in brain.output.read_text()


async def test_a_client_that_reads_nothing_holds_nobody_up(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    hurry = {"BRAIN_SHUTDOWN_SECONDS": "1"}
    async with running_brain(tmp_path, "--database-url", database, **hurry) as brain:
        stalled = await silent_client(brain.port)
        async with brain.client() as client:
            large = "x" * 200_000
            for number in range(100):
                await connection.execute(
                    "INSERT INTO tasks (id, error) VALUES ($1, $2)", str(number), large
                )
                assert (await message(client))["data"]["id"] == str(number)

            brain.process.send_signal(signal.SIGTERM)
            with pytest.raises(ConnectionClosed) as closed:
                await message(client)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1012

        assert await brain.stopped() == 0
        stalled.close()
    assert "Traceback" not in brain.output.read_text()


async def test_a_client_that_falls_off_the_ring_is_told_to_come_back(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    small = {"BRAIN_RING_BYTES": "1000000"}
    async with running_brain(tmp_path, "--database-url", database, **small) as brain:
        async with brain.client() as slow, brain.client() as client:
            slow.transport.pause_reading()
            large = "x" * 200_000
            for number in range(100):
                await connection.execute(
                    "INSERT INTO tasks (id, error) VALUES ($1, $2)", str(number), large
                )
                assert (await message(client))["data"]["id"] == str(number)
            slow.transport.resume_reading()

            told = 0
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    assert (await message(slow))["data"]["id"] == str(told)
                    told += 1
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4008
            assert told < 100


async def test_what_was_not_read_is_cut_by_the_kernel(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    impatient = {"BRAIN_UNREAD_SECONDS": "1"}
    async with running_brain(tmp_path, "--database-url", database, **impatient) as brain:
        stalled = await silent_client(brain.port)
        async with brain.client() as client:
            for number in range(100):
                await connection.execute(
                    "INSERT INTO tasks (id, error) VALUES ($1, $2)", str(number), "x" * 200_000
                )
                assert (await message(client))["data"]["id"] == str(number)
            async with asyncio.timeout(20):
                while (
                    '"connected_clients": 1,'
                    not in (await get(brain.http + "/api/brain/status/ws"))[1]
                ):
                    await asyncio.sleep(0.05)
        stalled.close()


async def silent_client(port: int) -> socket.socket:
    """Connect and never read a byte after the handshake."""
    loop = asyncio.get_running_loop()
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.setblocking(False)
    await loop.sock_connect(client, ("127.0.0.1", port))
    await loop.sock_sendall(
        client,
        b"GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
    )
    assert b"101" in await loop.sock_recv(client, 100)
    return client
