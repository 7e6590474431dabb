"""The rows of a watched table, and the cursor after which they change."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from brain.message.channel_schema import ChannelSchemas
from brain.message.snapshot import Snapshot, parts_of
from brain.web.requests import readable_by
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoint, which reads through the pool in the request's state."""

    async def snapshot(request: Request) -> Response:
        channel: str = request.path_params["channel"]
        found = await services.snapshots.read(request.state.pool, frozenset({channel}))
        if channel not in found.tables:
            raise HTTPException(404, f"no table is watched on the channel {channel}")
        return StreamingResponse(
            body(found, channel, services.schemas),
            headers={"cache-control": "no-store"},
            media_type="application/json",
        )

    guarded = readable_by(services.authority, "channel", snapshot)
    return [Route("/api/brain/snapshot/{channel}", guarded)]


async def body(snapshot: Snapshot, channel: str, schemas: ChannelSchemas) -> AsyncIterator[bytes]:
    """Yield the response in pieces, with a row per line."""
    name, cursor = orjson.dumps(channel), orjson.dumps(str(snapshot.cursor))
    yield b'{\n  "channel": %b,\n  "cursor": %b,\n  "rows": [' % (name, cursor)
    separator = "\n    "
    for part in parts_of(snapshot):
        rows = schemas.show_rows(channel, part.rows)
        if rows:
            yield (separator + ",\n    ".join(rows)).encode()
            separator = ",\n    "
    yield b"]\n}\n" if separator == "\n    " else b"\n  ]\n}\n"
