"""Nothing that a client or an operator keeps secret is in the log: in no format, at no level."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import jwt
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import PATIENCE_SECONDS, becomes, running
from tests.postgres import ResettableDatabase

MARK = "s3cr3t"
KEY = f"{MARK}-key-of-tokens-0123456789abcdef"
OTHER_KEY = f"{MARK}-another-key-0123456789abcdefgh"


def token(key: str = KEY, seconds: float = 600, **claims: Any) -> str:
    claims = {"sub": "ann", "exp": time.time() + seconds, "note": MARK, **claims}
    return jwt.encode(claims, key, "HS256")


TOKENS = [
    token(),
    token(OTHER_KEY),
    token(seconds=-600),
    token(sub=""),
    token(channels=7),
    f"{MARK}.{MARK}.{MARK}",
    MARK * 2000,
]
FRAMES: list[str | bytes] = [
    MARK,
    json.dumps({"type": MARK, "token": MARK}),
    json.dumps({"type": "auth", "token": TOKENS[1]}),
    "[" * 200 + MARK,
    MARK.encode(),
    MARK * 20_000,
    f"\ud7ff{MARK}",
]
HEADS = [
    f"GET /{MARK} {MARK}\r\n\r\n",
    f"{MARK}\r\n\r\n",
    f"GET /ws?token={MARK} HTTP/1.1\r\nHost: localhost\r\n{MARK}\r\n\r\n",
    f"GET /ws?token={MARK} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n"
    f"Upgrade: websocket\r\nSec-WebSocket-Key: {MARK}\r\nSec-WebSocket-Version: 13\r\n\r\n",
    f"GET /ws?token={MARK} HTTP/1.1\r\nHost: localhost\r\nConnection: upgrade\r\n"
    f"Upgrade: h2c\r\nCookie: {MARK}\r\n\r\n",
    f"GET /?token={'x' * 70_000}{MARK} HTTP/1.1\r\nHost: localhost\r\n\r\n",
]


async def send_requests(port: int) -> None:
    """Send secrets wherever a request has room for one."""
    cookie = {"cookie": f"session={MARK}"}
    async with AsyncClient(trust_env=False, base_url=f"http://localhost:{port}") as client:
        for one in TOKENS:
            bearer = {"authorization": f"Bearer {one}", **cookie}
            for path in ("/api/brain/snapshot/tasks", "/sse?channel=tasks&where=%7B", "/nowhere"):
                await client.get(path, headers=bearer)
            await client.get(f"/api/brain/snapshot/tasks?token={one}", headers=cookie)
            await client.get(f"/sse?channel=tasks&ticket={one}", headers=cookie)
            await client.post("/api/brain/publish", headers=bearer, json={"data": MARK})
            await client.post("/api/brain/ticket", headers=bearer)
        await client.get("/", headers={"authorization": f"Basic {MARK}"})
        await client.get("/", headers={"origin": f"http://me:{MARK}@elsewhere.example"})
        await client.get("/", headers={"host": f"me:{MARK}@elsewhere.example"})


async def open_websockets(port: int) -> None:
    """Open WebSockets with secrets in their addresses, and send secrets over them."""
    url = f"ws://localhost:{port}/ws"
    cookie = {"cookie": f"session={MARK}"}
    for one in TOKENS:
        for query, protocols in ((f"?token={one}", None), ("", [f"brain.token.{one}", "x"])):
            try:
                async with connect(
                    url + query,
                    subprotocols=protocols,  # type: ignore[arg-type]
                    additional_headers=cookie,
                    proxy=None,
                ) as client:
                    await client.recv()
                    await client.close(1000, MARK)
            except (InvalidStatus, ConnectionClosed, ConnectionError):
                pass  # a token may be too long for a line
    for path in ("/ws", "/ws/v1"):
        for frame in FRAMES:
            async with connect(f"{url}{path.removeprefix('/ws')}", proxy=None) as client:
                await client.recv()
                try:
                    await client.send(frame)
                    await client.send(frame)
                except ConnectionClosed:
                    pass


def send_heads(port: int) -> None:
    for head in HEADS:
        with socket.create_connection(("localhost", port)) as client:
            client.settimeout(PATIENCE_SECONDS)
            try:
                client.sendall(head.encode())
                client.shutdown(socket.SHUT_WR)
                while client.recv(1000):
                    pass
            except (ConnectionError, TimeoutError):
                pass


def with_password(url: str) -> str:
    """Return the URL of a database with a password, which a server that trusts ignores."""
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{user.partition(':')[0]}:{MARK}@{host}"))


@pytest.mark.parametrize("log_format", ["text", "json"])
async def test_no_line_has_a_token_a_password_a_cookie_or_what_a_client_has_sent(
    tmp_path: Path, module_database: ResettableDatabase, log_format: str
) -> None:
    file = tmp_path / "brain.env"
    file.write_text(f"BRAIN_JWT_SECRET={KEY}\nBRAIN_PUBLIC_CHANNELS=tasks\n{MARK}_X={MARK}\n")
    command = [sys.executable, "-m", "brain", "serve", "--port=0", f"--env-file={file}"]
    environment = {
        "BRAIN_LOG_FORMAT": log_format,
        "BRAIN_LOG_LEVEL": "debug",
        "BRAIN_LOG_ADDRESSES": "true",
        "BRAIN_DATABASE_URL": with_password(module_database.url),
    }
    output = tmp_path / "brain.log"
    async with running(command, output, environment, starts_session=True) as process:
        await becomes(lambda: " is ready on localhost:" in output.read_text())
        port = int(re.findall(r" is ready on localhost:(\d+)", output.read_text())[0])
        await send_requests(port)
        await open_websockets(port)
        await asyncio.to_thread(send_heads, port)
        file.write_text(MARK)
        process.send_signal(signal.SIGHUP)
        await becomes(lambda: "the settings stay as they were" in output.read_text())
        process.terminate()
        assert await process.wait() == 0
    log = output.read_text().replace(f"{MARK}_X is no setting", "")
    assert "Token refused: it has expired" in log
    assert "Origin refused" in log
    assert "was closed with 1009" in log
    assert "Invalid HTTP request received" in log
    assert [line for line in log.splitlines() if MARK in line] == []
    assert all(part not in log for part in (TOKENS[0][-20:], TOKENS[1][-20:]))
