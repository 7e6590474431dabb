"""How much all bodies of requests may hold, and that rights come before them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from httpx2 import AsyncClient
from starlette.types import Receive, Scope, Send

from brain.app import MAX_BODY_BYTES, MOST_BODIES_BYTES, build_app
from brain.system import installed_systems
from brain.web.body_budget import BodyBudgetMiddleware
from tests.raw_websocket import RawClient, connected_to
from tests.session.test_commands import token, with_secret
from tests.transport.served import served

POSTS = ("/api/ws/broadcast", "/api/ws/broadcast/all", "/api/brain/users/revoke")


def head(path: str, length: int, *headers: str) -> bytes:
    lines = [
        f"POST {path} HTTP/1.1",
        *("Host: localhost", "Content-Type: application/json", f"Content-Length: {length}"),
        *headers,
    ]
    return "".join(f"{line}\r\n" for line in (*lines, "")).encode()


async def status(raw: RawClient) -> int:
    async with asyncio.timeout(20):
        return int((await raw.receive()).split(b" ")[1])


async def test_nothing_is_read_of_a_client_without_the_right(database: str) -> None:
    """Answer before a body has come that never comes."""
    app = build_app(database, with_secret(), list(installed_systems().values()))
    async with served(app) as (port, _):
        for path in POSTS:
            for given, expected in (
                ([], 401),
                ([f"Authorization: Bearer {token()}"], 403),
                (["Authorization: Bearer no"], 401),
            ):
                async with connected_to(port) as raw:
                    await raw.send(head(path, MAX_BODY_BYTES, *given))
                    assert await status(raw) == expected


async def test_all_bodies_together_are_bounded(database: str) -> None:
    app = build_app(database, with_secret(), list(installed_systems().values()))
    right = f"Authorization: Bearer {token(publish=['*', 'users:revoke'])}"
    async with served(app) as (port, server), AsyncExitStack() as stack:
        refused = 0
        clients = []
        for number in range(MOST_BODIES_BYTES // MAX_BODY_BYTES + 8):
            raw = await stack.enter_async_context(connected_to(port))
            await raw.send(
                head(POSTS[number % 3], MAX_BODY_BYTES, right) + b" " * (MAX_BODY_BYTES - 1)
            )
            clients.append(raw)
        answers = [asyncio.create_task(status(raw)) for raw in clients]
        done, waiting = await asyncio.wait(answers, return_when=asyncio.FIRST_COMPLETED)
        while len(done) < 8:
            more, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            done |= more
        refused = len(done)
        assert {one.result() for one in done} == {503}
        assert refused >= 8
        for one in waiting:
            one.cancel()
        await asyncio.wait(waiting)
        await stack.aclose()
        while server.server_state.tasks:
            await asyncio.sleep(0.01)
        async with AsyncClient(trust_env=False, base_url=f"http://127.0.0.1:{port}") as client:
            answer = await client.post(
                POSTS[0],
                json={"channel": "a", "message": "x" * 100_000},
                headers={"authorization": right.partition(" ")[2]},
            )
            assert answer.status_code == 200


@pytest.mark.parametrize("fails", [False, True])
async def test_what_a_request_held_is_free_when_it_ends(fails: bool) -> None:
    held: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        held.append(bodies._held_bytes)
        if fails:
            raise RuntimeError

    async def receive() -> dict[str, object]:
        return {"type": "http.request", "body": b"a" * 10}

    async def send(message: object) -> None: ...

    bodies = BodyBudgetMiddleware(app, 10)
    call: Callable[[], Awaitable[None]] = lambda: bodies({"type": "http"}, receive, send)  # noqa: E731
    for _ in range(2):
        if fails:
            with pytest.raises(RuntimeError):
                await call()
        else:
            await call()
    assert held == [10, 10] and bodies._held_bytes == 0
