"""`/client/…`: the TypeScript client as modules, so that a page needs no build step."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from brain.description.routes import Content, DescribedRoute, Operation
from brain.web.etags import etag_of, tagged

FOLDER = Path(__file__).parent / "static" / "client"
"""Built of clients/typescript by `make client`."""

MEDIA_TYPE = "text/javascript"
MODULES = {
    "brain.js": ("getClient", "The client for browsers, a JavaScript module"),
    "tabs.js": ("getClientTabs", "What the client loads where tabs share a connection"),
}
"""The file names, each with the id of its operation and what it is."""


def routes() -> list[DescribedRoute]:
    return [route(name, id, summary) for name, (id, summary) in MODULES.items()]


def route(name: str, id: str, summary: str) -> DescribedRoute:
    text = (FOLDER / name).read_bytes()
    etag = etag_of(text)

    async def module(request: Request) -> Response:
        return tagged(request, text, etag, MEDIA_TYPE)

    operation = Operation(
        id=id,
        summary=summary,
        description="Pages of this host and of the allowed origins may import it.",
        responses={200: Content(media_type=MEDIA_TYPE), 304: None},
    )
    return DescribedRoute(f"/client/{name}", module, operation)
