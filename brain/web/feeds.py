"""The state of a feed as it is now, for whoever polls."""

from __future__ import annotations

import logging

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from brain.auth import Authority
from brain.database.connection import DISCONNECTIONS, told
from brain.database.feeds import FeedReader
from brain.errors import SnapshotTooLarge
from brain.web.access import for_hearers
from brain.web.status import printed

logger = logging.getLogger(__name__)


def routes(authority: Authority) -> list[Route]:
    """Return the endpoints of all feeds there will ever be; their reader lies in the state."""

    async def feed(request: Request) -> Response:
        name = name_of(request)
        reader: FeedReader = request.state.feed_reader
        try:
            state = await reader.shared_state(name, request.path_params.get("argument"))
        except SnapshotTooLarge as error:
            return printed({"error": str(error)}, 413)
        except DISCONNECTIONS as error:
            logger.warning("the feed %s cannot be read: %s", name, told(error))
            return printed({"error": "the feed cannot be read, try again later"}, 503)
        if state is None:
            return printed({"error": "there is no such feed"}, 404)
        # A weak one: what does not count as a change may be another.
        tag = f'W/"{state.mark[:32]}"'
        headers = {"etag": tag, "cache-control": "no-cache", "vary": "Authorization"}
        if is_among(tag, request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        return Response(state.text, 200, headers, media_type="application/json")

    guarded = for_hearers(authority, name_of, feed)
    return [Route("/api/{feed}", guarded), Route("/api/{feed}/{argument}", guarded)]


def name_of(request: Request) -> str:
    name: str = request.path_params["feed"]
    return name


def is_among(tag: str, asked: list[str]) -> bool:
    """
    Whether a header If-None-Match lists `tag`, or is `*`.

    Source: RFC 9110, section 13.1.2: tags are compared without regard to weakness.
    """
    tags = {each.strip().removeprefix("W/") for line in asked for each in line.split(",")}
    return tag.removeprefix("W/") in tags or "*" in tags
