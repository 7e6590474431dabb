"""Counts answers by their status, and has those who refuse a client count that."""

from __future__ import annotations

from typing import Any

from starlette.applications import Starlette
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from brain.transport.refusal_counts import IN_SCOPE, RefusalCounts


class CountingApplication(Starlette):
    """An application that counts all of its answers, also those outside of its middleware."""

    def __init__(self, counts: RefusalCounts, **options: Any) -> None:
        super().__init__(**options)
        self.counts = counts

    def build_middleware_stack(self) -> ASGIApp:
        # Starlette itself answers 413 and 500, outside of all that an application may add.
        return CountingMiddleware(super().build_middleware_stack(), self.counts)


class CountingMiddleware:
    """To be the outermost: what the others refuse is counted too."""

    def __init__(self, app: ASGIApp, counts: RefusalCounts) -> None:
        self._app = app
        self._counts = counts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count_and_send(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._counts.responses[message["status"]] += 1
            await send(message)

        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        counted = {**scope, IN_SCOPE: self._counts}
        is_http = scope["type"] == "http"
        await self._app(counted, receive, count_and_send if is_http else send)
