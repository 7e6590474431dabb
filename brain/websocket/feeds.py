"""The addresses of feeds: the whole state at once, and again whenever it has changed."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from uuid import uuid4

from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from brain.database.attendance import Visit
from brain.database.connection import DISCONNECTIONS, told
from brain.errors import ConnectionEnded
from brain.hub.feed import Follower
from brain.message.json_depth import is_deeper
from brain.message.wire_format import SERVICE_RESTART
from brain.websocket.conversation import EXPIRED, NO_TEXT, TOO_DEEP
from brain.websocket.entrance import Entrance, Guest, enter, identified, refuse
from brain.websocket.keeper import FeedKeeper, Kept, Place

logger = logging.getLogger(__name__)


def routes(entrance: Entrance) -> list[WebSocketRoute]:
    """Return the endpoints of all feeds there will ever be; their keeper lies in `state.feeds`."""

    async def feed(websocket: WebSocket) -> None:
        name = websocket.path_params["feed"]
        argument = websocket.path_params.get("argument")
        keeper: FeedKeeper = websocket.state.feeds
        identity = await identified(websocket, entrance.authority)
        if not (await entrance.authority.allowed(identity, [name]))(name):
            await refuse(websocket, 403, "this feed is not for everybody: a token is needed")
            return
        try:
            is_known = await keeper.knows(name, argument)
        except DISCONNECTIONS as error:
            logger.warning("cannot look for the feed that a client wants: %s", told(error))
            await refuse(websocket, 503, "the database cannot be reached, try again later")
            return
        if not is_known:
            await refuse(websocket, 404, "there is no such feed")
            return

        def begin(guest: Guest) -> Following:
            following = Following(guest, entrance, keeper, (name, argument))
            following.begin()
            return following

        await enter(websocket, entrance, begin, identity)

    return [WebSocketRoute("/ws/{feed}", feed), WebSocketRoute("/ws/{feed}/{argument}", feed)]


class Following:
    """One client of a feed: told its state, and heard out."""

    silence_seconds: float | None = None
    going_away_code = SERVICE_RESTART

    def __init__(self, guest: Guest, entrance: Entrance, keeper: FeedKeeper, place: Place) -> None:
        self._outlet = guest.outlet
        self._when_over = guest.leave
        self._entrance = entrance
        self._keeper = keeper
        self._place = place
        self._seconds_left = entrance.seconds_left(guest.identity)
        self._expiry: asyncio.TimerHandle | None = None
        self._follower = Follower(self._outlet.send_now, self._outlet.write, self._end)
        self._kept: Kept | None = None
        self.visit = Visit(uuid4(), guest.identity.user, False, frozenset())
        self.heard_at = time.monotonic()

    def begin(self) -> None:
        """Have the client told the state, now or when it has been read."""
        if self._seconds_left < math.inf:
            self._expiry = asyncio.get_running_loop().call_later(
                max(0.0, self._seconds_left), self.close, EXPIRED, "the token has expired"
            )
        self._entrance.visitors.arrive(self)
        try:
            self._kept = self._keeper.follow(*self._place, self._follower)
        except ConnectionEnded as reason:
            self._end(reason)

    def hear(self, message: str | bytes) -> None:
        """Take whatever the client says for a sign of life."""
        if self._kept is None:
            return
        if isinstance(message, bytes):
            self.close(NO_TEXT, "text messages only")
        elif is_deeper(message, self._entrance.most_depth):
            self.close(TOO_DEEP, "nested too deeply")

    def pause(self) -> None:
        """Write no more until the client has read what was written."""
        if self._kept is not None:
            self._kept.feed.pause(self._follower)

    def drain(self) -> None:
        """Go on: it has."""
        if self._kept is not None:
            self._kept.feed.drain(self._follower)

    def leave(self) -> None:
        """Forget the client; may be called again."""
        if self._kept is not None:
            self._keeper.leave(self._kept, self._follower)
            self._kept = None
        if self._expiry is not None:
            self._expiry.cancel()
        self._entrance.visitors.leave(self)
        self._when_over()

    def _end(self, reason: ConnectionEnded) -> None:
        self.close(reason.close_code, str(reason))

    def close(self, code: int, reason: str) -> None:
        """Say goodbye."""
        self.leave()
        self._outlet.close(code, reason)
