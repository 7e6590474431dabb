"""The addresses of feeds: `/ws/{feed}` to follow one, `/api/{feed}` for its state."""

from __future__ import annotations

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route, WebSocketRoute
from starlette.websockets import WebSocket

from brain.database.connection import DATABASE_ERRORS, first_line
from brain.errors import AccessUndecided, ClaimMissing
from brain.feeds.feed_session import FeedSession
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher
from brain.session.admission import Admitted
from brain.transport.handshake import refuse
from brain.web.requests import authenticate, readable_by
from brain.web.services import Services
from brain.web.unmatched import upgrade_required

NO_FEED = "there is no such feed"

# Of the name of a feed, which a client chooses.
LONGEST_SHOWN = 200


def routes(services: Services, ws: str = "/ws", api: str = "/api") -> list[BaseRoute]:
    """Return the routes of all feeds, also of those that are defined later, below two paths."""
    feeds = Feeds(services)
    state = readable_by(services.authority, "feed", feeds.state)
    return [
        WebSocketRoute(f"{ws}/{{feed}}", feeds.follow),
        WebSocketRoute(f"{ws}/{{feed}}/{{argument}}", feeds.follow),
        Route(f"{ws}/{{feed}}", feeds.upgrade_required),
        Route(f"{ws}/{{feed}}/{{argument}}", feeds.upgrade_required),
        Route(f"{api}/{{feed}}", state),
        Route(f"{api}/{{feed}}/{{argument}}", state),
    ]


class Feeds:
    """The endpoints; the refresher and the reader are in the request's state."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def follow(self, websocket: WebSocket) -> None:
        """Open a session on a feed."""
        name = websocket.path_params["feed"]
        argument = websocket.path_params.get("argument")
        refresher: FeedRefresher = websocket.state.feeds
        handshake, authority = self._services.handshake, self._services.authority
        changes = self._services.sessions.registry.changes
        try:
            identity = await handshake.identify(websocket)
            access = await authority.read_access(identity, [name])
        except AccessUndecided as error:
            await refuse(websocket, error.http_status, str(error))
            return
        if not access(name):
            await refuse(websocket, 403, "a token that allows this feed is needed")
            return
        try:
            address = await refresher.address(name, argument, identity.claims)
        except ClaimMissing as error:
            await refuse(websocket, error.http_status, str(error))
            return
        except DATABASE_ERRORS as error:
            text = f"cannot look up the feed {name[:LONGEST_SHOWN]}: {first_line(error)}"
            self._services.problems.report("feeds", text)
            await refuse(websocket, 503, "the database cannot be reached, try again later")
            return
        if address is None:
            await refuse(websocket, 404, NO_FEED)
            return

        def session_for(admitted: Admitted) -> FeedSession:
            return FeedSession(admitted, self._services.sessions, refresher, address, changes)

        await handshake.accept(websocket, session_for, identity)

    async def upgrade_required(self, request: Request) -> Response:
        """Answer a request that is no WebSocket handshake: with 404 if there is no such feed."""
        name: str = request.path_params["feed"]
        argument = request.path_params.get("argument")
        authority = self._services.authority
        identity = await authenticate(request, authority)
        # A client that may not read a feed does not learn whether it exists.
        if (await authority.read_access(identity, [name]))(name):
            refresher: FeedRefresher = request.state.feeds
            if await refresher.address(name, argument, identity.claims) is None:
                raise HTTPException(404, NO_FEED)
        return upgrade_required()

    async def state(self, request: Request) -> Response:
        """Return the present state of a feed, for clients that poll."""
        reader: FeedReader = request.state.feed_reader
        refresher: FeedRefresher = request.state.feeds
        address = await refresher.address(
            request.path_params["feed"],
            request.path_params.get("argument"),
            request.state.identity.claims,
        )
        found = None if address is None else await reader.shared_state(*address)
        if found is None:
            raise HTTPException(404, NO_FEED)
        # A weak one: states that differ in ignored keys count as the same.
        etag = f'W/"{found.etag[:32]}"'
        headers = {"etag": etag, "cache-control": "no-cache", "vary": "Authorization"}
        if is_listed(etag, request.headers.getlist("if-none-match")):
            return Response(status_code=304, headers=headers)
        return Response(found.text, 200, headers, media_type="application/json")


def is_listed(etag: str, if_none_match: list[str]) -> bool:
    """
    Return True if the header If-None-Match lists `etag`, or is `*`.

    Source: RFC 9110, section 13.1.2: etags are compared weakly.
    """
    listed = {each.strip().removeprefix("W/") for line in if_none_match for each in line.split(",")}
    return etag.removeprefix("W/") in listed or "*" in listed
