"""The addresses of feeds: `/ws/{feed}` to follow one, `/api/{feed}` for its state."""

from __future__ import annotations

from dataclasses import replace
from typing import TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.websockets import WebSocket

from brain.database.connection import DATABASE_ERRORS, first_line
from brain.description.routes import (
    JSON,
    Conversation,
    DescribedRoute,
    DescribedWebSocketRoute,
    Operation,
    Right,
    path_parameter,
)
from brain.errors import AccessUndecided, ClaimMissing
from brain.feeds.feed_session import FeedSession
from brain.feeds.reader import FeedReader
from brain.feeds.refresher import FeedRefresher
from brain.feeds.state import FeedUpdate
from brain.session.admission import Admitted
from brain.transport.handshake import refuse
from brain.web.etags import tagged_json
from brain.web.requests import authenticate, readable_by
from brain.web.services import Services
from brain.web.unmatched import upgrade_required

NO_FEED = "there is no such feed"

Described = TypeVar("Described", Conversation, Operation)

# Of the name of a feed, which a client chooses.
LONGEST_SHOWN = 200


FEED = path_parameter("feed", "The name of the feed.")
ARGUMENT = path_parameter("argument", "The argument of the feed's query.")
FOLLOW = Conversation(
    id="feed",
    summary="The state of a feed, now and whenever it changes",
    description="What clients send is ignored.",
    parameters=(FEED,),
    sends=(FeedUpdate,),
)
STATE = Operation(
    id="getFeed",
    summary="The present state of a feed",
    description="With the `ETag` of the state that a client has in `If-None-Match`, a state that is"
    " still the same is 304.",
    right=Right.READING,
    parameters=(FEED,),
    responses={200: JSON, 304: None},
    errors=(401, 403, 404, 413, 503),
)


def routes(
    services: Services, ws: str = "/ws", api: str = "/api", system: str = ""
) -> list[BaseRoute]:
    """
    Return the routes of all feeds, also of those that are defined later, below two paths.

    `system` is the name of the system that they are for, if it is not the core.
    """
    feeds = Feeds(services)
    get = readable_by(services.authority, "feed", feeds.state)
    infix = "".join(word.capitalize() for word in system.split("_"))
    follow = replace(FOLLOW, id=f"feed{infix}")
    state = replace(STATE, id=f"getFeed{infix}", tag=system or STATE.tag)
    return [
        DescribedWebSocketRoute(f"{ws}/{{feed}}", feeds.follow, follow),
        DescribedWebSocketRoute(f"{ws}/{{feed}}/{{argument}}", feeds.follow, with_argument(follow)),
        Route(f"{ws}/{{feed}}", feeds.upgrade_required),
        Route(f"{ws}/{{feed}}/{{argument}}", feeds.upgrade_required),
        DescribedRoute(f"{api}/{{feed}}", get, state),
        DescribedRoute(f"{api}/{{feed}}/{{argument}}", get, with_argument(state)),
    ]


def with_argument(described: Described) -> Described:
    return replace(described, id=f"{described.id}WithArgument", parameters=(FEED, ARGUMENT))


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
        return tagged_json(request, found.text, etag, "Authorization")
