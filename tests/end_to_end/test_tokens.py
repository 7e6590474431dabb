"""Tokens appear in no log and in no response."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from httpx2 import AsyncClient
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.end_to_end.brain import RunningBrain, running_brain

SECRET = "0123456789abcdef0123456789abcdef"
CONNECTIONS = 1000
AT_ONCE = 20


def token(number: int, secret: str = SECRET) -> str:
    claims = {"sub": f"user-{number}", "exp": time.time() + 600, "iat": time.time() - 5}
    return jwt.encode(claims, secret)


async def come_and_go(brain: RunningBrain, number: int, given: str) -> str:
    """Connect in one of the ways to pass a token; return the response."""
    ways: list[tuple[str, dict[str, Any]]] = [
        (f"/ws?token={given}", {}),
        (f"/?token={given}", {}),
        (f"/ws/connect?token={given}", {}),
        (f"/nowhere?token={given}", {}),
        ("/ws", {"additional_headers": {"authorization": f"Bearer {given}"}}),
        ("/ws", {"subprotocols": ["brain.cursor", f"brain.token.{given}"]}),
        ("/ws/connect", {}),
        (f"/ws?cursor=nonsense&where=nonsense&token={given}", {}),
    ]
    path, options = ways[number % len(ways)]
    try:
        async with connect(
            f"ws://localhost:{brain.port}{path}", proxy=None, open_timeout=30, **options
        ) as client:
            await client.send(f'{{"type": "auth", "token": "{given}"}}')
            async with asyncio.timeout(5):
                if path != "/ws" and not path.startswith("/?"):
                    return str(await client.recv())
        return ""
    except InvalidStatus as refused:
        return f"{refused.response.headers}{refused.response.body.decode()}"
    except ConnectionClosed as closed:
        return str(closed)


async def test_no_token_appears_in_a_log_or_a_response(tmp_path: Path) -> None:
    secrets = {"BRAIN_JWT_SECRET": SECRET, "BRAIN_MAX_CONNECTIONS_PER_ADDRESS": "100000"}
    keys = [SECRET if number % 3 else SECRET[::-1] for number in range(CONNECTIONS)]
    tokens = [token(number, key) for number, key in enumerate(keys)]
    async with running_brain(tmp_path, "--ephemeral", **secrets) as brain:
        answers: list[str] = []
        for start in range(0, CONNECTIONS, AT_ONCE):
            some = range(start, start + AT_ONCE)
            answers += await asyncio.gather(*(come_and_go(brain, n, tokens[n]) for n in some))
        async with AsyncClient(trust_env=False) as client:
            for number, given in enumerate(tokens[:40]):
                path = ("/api/brain/tasks", "/api/ws/stats", "/health", "/nowhere")[number % 4]
                response = await client.get(f"{brain.http}{path}?token={given}")
                answers.append(response.text + str(response.headers))
                response = await client.post(
                    f"{brain.http}/api/ws/broadcast",
                    content=f'{{"token": "{given}"',
                    headers={
                        "authorization": f"Bearer {given}",
                        "content-type": "application/json",
                    },
                )
                answers.append(response.text + str(response.headers))
    output = "\n".join([brain.output.read_text(), *answers])
    assert len(answers) == CONNECTIONS + 80
    # A part of a token must not appear either: each has its own payload and signature.
    found = [part for given in tokens for part in given.split(".")[1:] if part[:20] in output]
    assert found == []


async def test_a_refused_token_gets_no_reason_in_the_response(tmp_path: Path) -> None:
    async with running_brain(tmp_path, "--ephemeral", BRAIN_JWT_SECRET=SECRET) as brain:
        with pytest.raises(InvalidStatus) as refused:
            bad = token(1, SECRET[::-1])
            await connect(f"ws://localhost:{brain.port}/?token={bad}", proxy=None)
        assert refused.value.response.body == b"a valid token is needed\n"
