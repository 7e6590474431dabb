"""`/client/brain.js`: the TypeScript client as one module, so that a page needs no build step."""

from __future__ import annotations

from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from brain.description.routes import Content, DescribedRoute, Operation
from brain.web.etags import etag_of, tagged

FILE = Path(__file__).parent / "static" / "client" / "brain.js"
"""Built of clients/typescript by `make client`."""

MEDIA_TYPE = "text/javascript"
OPERATION = Operation(
    id="getClient",
    summary="The client for browsers, a JavaScript module",
    description="Pages of this host and of the allowed origins may import it.",
    responses={200: Content(media_type=MEDIA_TYPE), 304: None},
)


def routes() -> list[DescribedRoute]:
    text = FILE.read_bytes()
    etag = etag_of(text)

    async def client(request: Request) -> Response:
        return tagged(request, text, etag, MEDIA_TYPE)

    return [DescribedRoute("/client/brain.js", client, OPERATION)]
