"""Connections under TLS, where nothing may be written to the socket itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
from websockets.asyncio.client import connect

from tests.session.event_stream_client import stream
from tests.transport.certificates import new_certificate
from tests.transport.served import application, new_hub, served
from tests.transport.test_websocket import batches

ROWS = 300
TEXT = "x" * 10_000


async def test_clients_of_both_transports_get_everything_under_tls(tmp_path: Path) -> None:
    files = new_certificate(tmp_path)
    hub = new_hub(ring_bytes=100_000_000)
    options: dict[str, Any] = {
        "ssl_certfile": str(files.certificate),
        "ssl_keyfile": str(files.key),
    }
    async with served(application(hub), **options) as (port, server):
        trust = files.for_clients()
        url = f"wss://127.0.0.1:{port}/ws?channel=tasks"
        async with (
            connect(url, ssl=trust, proxy=None, max_queue=None) as websocket,
            stream(port, ssl=trust, channel="tasks") as events,
        ):
            assert orjson.loads(await websocket.recv())["type"] == "connected"
            await events.until("live")
            for batch in batches(ROWS, TEXT):
                hub.deliver(batch)
            expected = [str(number) for number in range(1, ROWS + 1)]
            received = [orjson.loads(await websocket.recv())["data"]["id"] for _ in expected]
            assert received == expected
            assert [frame["key"][0] for frame in await events.frames(ROWS)] == expected
            assert hub.statistics().lagging == 0
            server.should_exit = True
            closed = await events.frame()
            assert closed is not None and closed["code"] == 1012
