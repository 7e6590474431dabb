"""The rows of a watched table, and the cursor after which they change."""

from __future__ import annotations

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.web.requests import readable_by
from brain.web.responses import json_response
from brain.web.services import Services


def routes(services: Services) -> list[Route]:
    """Return the endpoint, which reads through the pool in the request's state."""

    async def snapshot(request: Request) -> Response:
        channel: str = request.path_params["channel"]
        found = await services.snapshots.read(request.state.pool, frozenset({channel}))
        if channel not in found.tables:
            raise HTTPException(404, f"no table is watched on the channel {channel}")
        rows = services.schemas.show_rows(channel, found.tables[channel])
        return json_response(
            {
                "channel": channel,
                "cursor": str(found.cursor),
                "rows": [orjson.Fragment(row) for row in rows],
            }
        )

    guarded = readable_by(services.authority, "channel", snapshot)
    return [Route("/api/brain/snapshot/{channel}", guarded)]
