"""The frames of one subscription, which goes on where it was when its connection is lost."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from typing import Any

from brain.client.connection import Connection
from brain.client.connector import Connector, Opened
from brain.client.errors import BrainClientError, NeedsWebSocket, Refused
from brain.client.link import Frame, LinkLost
from brain.client.place import Place
from brain.client.query import Query
from brain.client.refusals import is_retried
from brain.client.status import CATCHING_UP, StatusBoard

logger = logging.getLogger("brain.client")


class Stream:
    """Yields the frames of a subscription, `subscribed` included."""

    def __init__(
        self,
        query: Query,
        connector: Connector,
        board: StatusBoard,
        cursor: str | None,
        *,
        decimals: bool,
    ) -> None:
        self.query = query
        self.place = Place(cursor or query.after, wants_snapshot=bool(query.snapshot))
        self.has_begun = False
        """True once Brain has granted it."""
        self._connector = connector
        self._decimals = decimals
        self._connection = Connection(query.name, self._subscribe, connector, board)
        self._is_resumed = False
        self._has_been_live = False
        """Before, a client that is cut has to begin where it began."""

    @property
    def is_closed(self) -> bool:
        return self._connection.is_closed

    async def next(self) -> Frame:
        """
        Return the next frame; raises Refused, Closed, or ClosedHere.

        Being cancelled loses nothing.
        """
        while True:
            frame = await self._connection.next()
            try:
                self._note(frame)
            except LinkLost as lost:
                self._connection.lose(lost)
                continue
            except BrainClientError as end:
                self._connection.end(end)
            return frame

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame, if there is a connection; raises NeedsWebSocket."""
        opened = self._connection.opened
        if opened is None:
            return
        if not opened.link.can_send:
            raise NeedsWebSocket("only server-sent events get through to Brain")
        # If the connection breaks, `next` learns it.
        with contextlib.suppress(LinkLost):
            await opened.link.send(frame)

    def close(self) -> None:
        """Drop the connection."""
        self._connection.close()

    def abandon(self) -> None:
        """Close from any thread."""
        self._connection.abandon()

    async def _subscribe(self) -> Opened:
        frame = self.query.frame(self.place.cursor, is_first=not self._has_been_live)
        self._is_resumed = "after" in frame or "since" in frame
        return await self._connector.subscribe(frame, decimals=self._decimals)

    def _note(self, frame: Frame) -> None:
        match frame:
            case {"type": "subscribed"}:
                self.has_begun = True
                self._move(frame)
            case {"type": "unsubscribed", "code": "not_allowed"}:
                raise Refused("the right to read the channel was lost", code="not_allowed")
            case {"type": "error"} if frame.get("id") == "subscription":
                raise self._of_error(frame)
            case {"type": "error"}:
                logger.warning("%s: %s", self.query.name, frame["message"])
            case _:
                self._move(frame)

    def _move(self, frame: Frame) -> None:
        self.place.move(frame, is_resumed=self._is_resumed)
        if frame.get("type") == "subscribed" or frame.get("op") in ("live", "reset"):
            if self.place.is_live:
                self._has_been_live = True
                self._connection.works()
            else:
                self._connection.report(CATCHING_UP)

    def _of_error(self, frame: Frame) -> BrainClientError | LinkLost:
        code, message, advice = frame["code"], frame["message"], frame["advice"]
        opened = self._connection.opened
        if code == "not_allowed" and opened is not None and opened.user is None:
            if opened.token is not None:
                message += ": it does not know the user of the token"
                advice = "Give a token that was signed with Brain's key and has not expired."
            return self._connection.refused_token(Refused(message, code=code, advice=advice))
        if is_retried(code):
            return LinkLost(message, advice=advice)
        return Refused(message, code=code, advice=advice)
