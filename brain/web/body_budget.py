"""The memory of all bodies of requests that a process holds at a time."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RETRY_AFTER_SECONDS = 5


class BodyBudgetMiddleware:
    """Refuses the request whose body would exceed what all may hold together."""

    def __init__(self, app: ASGIApp, most_bytes: int) -> None:
        self._app = app
        self._most_bytes = most_bytes
        self._held_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        own_bytes = 0

        async def receive_within() -> Message:
            nonlocal own_bytes
            message = await receive()
            size = len(message.get("body", b""))
            if self._held_bytes + size > self._most_bytes:
                headers = {"Retry-After": str(RETRY_AFTER_SECONDS)}
                raise HTTPException(503, "too many requests are being read, try again", headers)
            self._held_bytes += size
            own_bytes += size
            return message

        try:
            await self._app(scope, receive_within, send)
        finally:
            self._held_bytes -= own_bytes
