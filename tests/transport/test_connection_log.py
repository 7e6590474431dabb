"""The line about the end of a connection: over each transport, and for each way to end."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import struct
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from brain.hub.hub import Hub
from brain.message.cursor import Cursor
from brain.message.event import Batch
from brain.settings import Settings
from tests.session.event_stream_client import stream
from tests.transport.certificates import new_certificate
from tests.transport.served import a_task, application, new_hub, served
from tests.transport.test_asgi import hypercorn

PATIENCE_SECONDS = 30
TEXT = "x" * 10_000

counted = pytest.mark.skipif(sys.platform != "linux", reason="the kernel counts what was sent")


@pytest.fixture(autouse=True)
def at_info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "brain.session.connection_log")


@pytest.fixture
async def hub() -> Hub:
    return new_hub(ring_bytes=100_000_000)


@pytest.fixture
async def port(hub: Hub) -> AsyncIterator[int]:
    async with served(application(hub)) as (port, _):
        yield port


def url_of(port: int, scheme: str = "ws") -> str:
    return f"{scheme}://127.0.0.1:{port}/ws?channel=tasks&channel=agents&token=test-ann"


async def ended(caplog: pytest.LogCaptureFixture) -> Any:
    """Return the one line about a connection, once it is there."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not (found := [one for one in caplog.records if "connection" in one.event]):  # type: ignore[attr-defined]
            await asyncio.sleep(0.01)
    (record,) = found
    assert record.name == "brain.session.connection_log"
    return record


def deliver(hub: Hub) -> None:
    """Deliver an event of more than 10,000 bytes."""
    hub.deliver(Batch((a_task("1", 1, text=TEXT),), Cursor(1, 5)))


@counted
async def test_a_line_says_who_was_sent_how_much(
    hub: Hub, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(url_of(port), proxy=None) as client:
        await client.recv()
        deliver(hub)
        while len(await client.recv()) < len(TEXT):
            pass
        await client.close(3001)
    line = await ended(caplog)

    assert (line.code, line.transport, line.user) == (3001, "websocket", "user_test-ann")
    assert line.channels == 2
    assert line.format
    assert line.seconds >= 0
    # The answer to the handshake, the greeting, and the heads of frames.
    assert len(TEXT) < line.sent_bytes < len(TEXT) + 3000
    assert line.address is None
    assert "a connection of 'user_test-ann' was closed with 3001 after " in line.getMessage()
    assert "test-ann" not in line.getMessage().replace("user_test-ann", "")


@counted
async def test_a_client_that_vanishes_has_a_line(
    hub: Hub, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(url_of(port), proxy=None) as client:
        await client.recv()
        deliver(hub)
        while len(await client.recv()) < len(TEXT):
            pass
        opened = client.transport.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.transport.abort()
        line = await ended(caplog)

    assert line.code == 1006
    assert line.sent_bytes > len(TEXT)


async def test_a_client_that_sends_too_much_has_a_line(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(url_of(port), proxy=None) as client:
        await client.recv()
        await client.send("x" * 100_000)
        line = await ended(caplog)

    assert (line.code, line.user) == (1009, "user_test-ann")


@counted
async def test_a_stream_that_ends_has_a_line(
    hub: Hub, port: int, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"authorization": "Bearer test-ann"}
    async with stream(port, headers=headers, channel="tasks") as events:
        await events.until("live")
        deliver(hub)
        await events.frames(1)
    line = await ended(caplog)

    assert (line.code, line.transport, line.format) == (1006, "sse", "brain.v1")
    assert (line.user, line.channels) == ("user_test-ann", 1)
    assert len(TEXT) < line.sent_bytes < len(TEXT) + 3000


@counted
async def test_under_tls_the_bytes_are_counted_too(
    hub: Hub, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = new_certificate(tmp_path)
    options: dict[str, Any] = {
        "ssl_certfile": str(files.certificate),
        "ssl_keyfile": str(files.key),
    }
    async with served(application(hub), **options) as (port, _):
        async with connect(url_of(port, "wss"), ssl=files.for_clients(), proxy=None) as client:
            await client.recv()
            deliver(hub)
            while len(await client.recv()) < len(TEXT):
                pass
        line = await ended(caplog)

    assert (line.code, line.transport) == (1000, "websocket")
    assert len(TEXT) < line.sent_bytes < len(TEXT) + 8000


async def test_under_another_server_a_websocket_and_a_stream_have_the_same_line(
    hub: Hub, caplog: pytest.LogCaptureFixture
) -> None:
    async with hypercorn(application(hub)) as port:
        async with connect(url_of(port), proxy=None) as client:
            await client.recv()
            deliver(hub)
            while len(await client.recv()) < len(TEXT):
                pass
        line = await ended(caplog)
        # The code is what that server makes of the client's close frame.
        assert (line.transport, line.user) == ("websocket", "user_test-ann")
        assert len(TEXT) < line.sent_bytes < len(TEXT) + 3000

        caplog.clear()
        async with stream(port, channel="tasks") as events:
            await events.until("live")
            deliver_more(hub)
            await events.frames(1)
        line = await ended(caplog)
        assert (line.code, line.transport, line.user) == (1006, "sse", None)
        assert len(TEXT) < line.sent_bytes < len(TEXT) + 3000
        assert line.getMessage().startswith("a connection was closed with 1006 ")


def deliver_more(hub: Hub) -> None:
    hub.deliver(Batch((a_task("2", 2, text=TEXT),), Cursor(2, 5)))


@pytest.mark.parametrize("has_addresses", [True, False])
async def test_the_address_is_logged_only_if_that_is_wanted(
    hub: Hub, caplog: pytest.LogCaptureFixture, has_addresses: bool
) -> None:
    settings = Settings(log_addresses=has_addresses)
    async with (
        served(application(hub, settings=settings)) as (port, _),
        connect(url_of(port), proxy=None) as client,
    ):
        await client.recv()
        await client.close()
        line = await ended(caplog)

    assert line.address == ("127.0.0.1" if has_addresses else None)
    assert ("127.0.0.1" in line.getMessage()) == has_addresses


async def test_what_a_client_has_sent_is_in_no_line(
    port: int, caplog: pytest.LogCaptureFixture
) -> None:
    async with connect(f"{url_of(port)}&x=s3cret", proxy=None) as client:
        await client.recv()
        await client.send(json.dumps({"type": "s3cret"}))
        await client.close(1000, "s3cret")
    line = await ended(caplog)

    assert "s3cret" not in str(vars(line))
