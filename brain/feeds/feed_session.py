"""A client of a feed: sent its state, now and whenever it changes."""

from __future__ import annotations

import asyncio

from brain.close_codes import CloseCode
from brain.feeds.fanout import FeedSubscriber
from brain.feeds.refresher import FeedAddress, FeedRefresher, LiveFeed
from brain.session.admission import Admitted
from brain.session.session import Session, SessionContext


class FeedSession(Session):
    """
    One client of a feed.

    What the client sends counts towards its limits and is otherwise ignored.
    """

    __slots__ = ("_address", "_live", "_reauthorizing", "_refresher", "_subscriber")

    def __init__(
        self,
        admitted: Admitted,
        context: SessionContext,
        refresher: FeedRefresher,
        address: FeedAddress,
        changes: int | None = None,
    ) -> None:
        super().__init__(admitted, context, changes=changes)
        self._refresher = refresher
        self._address = address
        self._subscriber = FeedSubscriber(self._transport, self._transport.framing, self.end)
        self._live: LiveFeed | None = None
        self._reauthorizing: asyncio.Task[None] | None = None

    @property
    def format_name(self) -> str:
        return "feed"

    def reauthorize(self) -> None:
        if self._reauthorizing is not None:
            self._reauthorizing.cancel()
        self._reauthorizing = asyncio.create_task(self._reauthorize(), name="reauthorize")

    def pause_writing(self) -> None:
        if self._live is not None:
            self._live.fanout.pause_writing(self._subscriber)

    def resume_writing(self) -> None:
        if self._live is not None:
            self._live.fanout.resume_writing(self._subscriber)

    def _start(self) -> None:
        self._context.registry.add(self)
        self._live = self._refresher.subscribe(*self._address, self._subscriber)

    def _text_received(self, text: str) -> None:
        pass

    async def _reauthorize(self) -> None:
        name, _ = self._address
        access = await self._read_access([name])
        if access is not None and not access(name):
            self.close(CloseCode.ACCESS_LOST, "this client may not read the feed any more")

    def _stop(self) -> None:
        if self._reauthorizing is not None:
            self._reauthorizing.cancel()
        if self._live is not None:
            self._refresher.unsubscribe(self._live, self._subscriber)
            self._live = None
