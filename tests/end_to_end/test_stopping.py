from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import asyncpg
import pytest
from httpx2 import AsyncClient, Response
from websockets.exceptions import ConnectionClosed

from tests.end_to_end.brain import PATIENCE_SECONDS, get, message, running_brain
from tests.raw_websocket import SMALL_BUFFER_BYTES, upgraded
from tests.tasks import insert


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
async def test_every_client_is_closed_with_1012_and_the_process_exits_with_0(
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


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_brain_that_stops_serves_until_load_balancers_have_noticed(
    tmp_path: Path, database: str, connection: asyncpg.Connection, workers: int
) -> None:
    patient = {"BRAIN_DRAIN_DELAY_SECONDS": "600", "BRAIN_WORKERS": str(workers)}
    async with (
        running_brain(tmp_path, "--database-url", database, **patient) as brain,
        AsyncClient(trust_env=False) as balancer,
    ):
        async with brain.client() as client:
            assert (await balancer.get(brain.http + "/readyz")).status_code == 200

            brain.process.send_signal(signal.SIGTERM)

            # The first answer ends a connection that was kept open, and the next one is new.
            for _ in range(2):
                answer = await answered(balancer, brain.http + "/readyz", 503)
                assert answer.json() == {"status": "draining"}
                assert answer.headers["connection"] == "close"
            async with brain.client() as late:
                await insert(connection, "late")
                for each in (client, late):
                    assert (await message(each))["data"]["id"] == "late"

                brain.process.send_signal(signal.SIGINT)
                assert await brain.stopped() == 0
    assert "Traceback" not in brain.output.read_text()


async def answered(client: AsyncClient, url: str, status: int) -> Response:
    """Return the first answer with this status, whatever process gives it."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while (answer := await client.get(url)).status_code != status:
            await asyncio.sleep(0.02)
    return answer


async def test_a_client_that_reads_nothing_does_not_delay_the_shutdown(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    hurry = {"BRAIN_SHUTDOWN_SECONDS": "1"}
    async with (
        running_brain(tmp_path, "--database-url", database, **hurry) as brain,
        upgraded(brain.port, receive_buffer_bytes=SMALL_BUFFER_BYTES),
    ):
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
    assert "Traceback" not in brain.output.read_text()


async def test_a_client_that_falls_off_the_ring_is_closed_with_4008(
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

            count = 0
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    assert (await message(slow))["data"]["id"] == str(count)
                    count += 1
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 4008
            assert count < 100


async def test_a_client_that_reads_nothing_is_aborted_by_the_kernel(
    tmp_path: Path, database: str, connection: asyncpg.Connection
) -> None:
    impatient = {"BRAIN_UNREAD_TIMEOUT_SECONDS": "1"}
    async with (
        running_brain(tmp_path, "--database-url", database, **impatient) as brain,
        upgraded(brain.port, receive_buffer_bytes=SMALL_BUFFER_BYTES),
    ):
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
