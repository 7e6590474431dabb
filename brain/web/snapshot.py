"""The rows of a watched table, and the cursor from which they change."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth import Authority
from brain.database.connection import DISCONNECTIONS, told
from brain.database.snapshot import SnapshotReader
from brain.errors import SnapshotTooLarge
from brain.message.runs import told_rows
from brain.web.access import for_hearers
from brain.web.status import printed

logger = logging.getLogger(__name__)


def routes(snapshots: SnapshotReader, authority: Authority) -> list[Route]:
    """Return the endpoint, which reads through the pool in the request's state."""

    async def snapshot(request: Request) -> Response:
        channel = channel_of(request)
        try:
            found = await snapshots.read(request.state.pool, frozenset({channel}))
        except SnapshotTooLarge as error:
            return printed({"error": str(error)}, 413)
        except DISCONNECTIONS as error:
            logger.warning("cannot read %s: %s", channel, told(error))
            return printed({"error": "the database cannot be reached, try again later"}, 503)
        if channel not in found.tables:
            return printed({"error": f"no table is watched on the channel {channel}"}, 404)
        rows = told_rows(channel, found.tables[channel])
        return printed({"channel": channel, "cursor": str(found.cursor), "rows": rows})

    guarded = for_hearers(authority, channel_of, snapshot)
    return [Route("/api/brain/snapshot/{channel}", guarded)]


def channel_of(request: Request) -> str:
    channel: str = request.path_params["channel"]
    return channel
