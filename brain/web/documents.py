"""The documents of the application itself: `/openapi.json` and `/asyncapi.json`."""

from __future__ import annotations

import asyncio
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from brain.description.asyncapi import asyncapi_document, servers_of
from brain.description.openapi import openapi_document
from brain.description.routes import JSON, DescribedRoute, Operation
from brain.description.server_url import PREFIX, ServerUrl
from brain.web.etags import etag_of, tagged_json
from brain.web.services import Services

OPENAPI = Operation(
    id="getOpenapi", summary="This document (OpenAPI)", responses={200: JSON, 304: None}
)
ASYNCAPI = Operation(
    id="getAsyncapi",
    summary="What is sent over WebSockets and in event streams (AsyncAPI)",
    responses={200: JSON, 304: None},
)
# Relative to the document: so it is right where a proxy serves Brain below a path, too.
HERE = "."
VARY = "Host, X-Forwarded-Proto, X-Forwarded-Prefix"


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoints; they describe all routes of the application that they are part of."""
    documents = Documents(needs_token=not services.authority.is_open)
    return [
        DescribedRoute("/openapi.json", documents.openapi, OPENAPI),
        DescribedRoute("/asyncapi.json", documents.asyncapi, ASYNCAPI),
    ]


class Documents:
    """The endpoints; each document is made once, when it is first asked for."""

    def __init__(self, *, needs_token: bool) -> None:
        self._needs_token = needs_token
        self._lock = asyncio.Lock()
        self._openapi: bytes | None = None
        self._asyncapi: dict[str, Any] | None = None

    async def openapi(self, request: Request) -> Response:
        async with self._lock:
            if self._openapi is None:
                found = await asyncio.to_thread(
                    openapi_document, request.app.routes, HERE, needs_token=self._needs_token
                )
                self._openapi = orjson.dumps(found)
        return tagged_json(request, self._openapi, etag_of(self._openapi))

    async def asyncapi(self, request: Request) -> Response:
        server = server_of(request)
        async with self._lock:
            if self._asyncapi is None:
                self._asyncapi = await asyncio.to_thread(
                    asyncapi_document, request.app.routes, server, needs_token=self._needs_token
                )
        servers = servers_of(request.app.routes, server, needs_token=self._needs_token)
        text = orjson.dumps({**self._asyncapi, "servers": servers})
        return tagged_json(request, text, etag_of(text), VARY)


def server_of(request: Request) -> ServerUrl:
    """Return where the client has reached Brain: AsyncAPI has no relative URLs."""
    prefix = request.headers.get("x-forwarded-prefix", "").removesuffix("/")
    return ServerUrl(
        request.url.netloc,
        request.url.scheme == "https",
        prefix if PREFIX.fullmatch(prefix) else "",
    )
