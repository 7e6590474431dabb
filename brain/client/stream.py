"""The frames of one subscription, across all connections that it takes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from typing import NoReturn

from brain.client.backoff import Backoff
from brain.client.connector import Connector, Opened
from brain.client.errors import BrainClientError, Refused
from brain.client.link import Frame, HandshakeRefused, LinkLost
from brain.client.place import Place
from brain.client.query import Query
from brain.client.refusals import TOKEN_EXPIRED, closed_for_good, is_retried, token_expired
from brain.client.status import CATCHING_UP, CONNECTING, LIVE, Status, StatusBoard
from brain.client.tokens import renewal_seconds

# Brain sends something every 25 s at least.
WATCHDOG_SECONDS = 45.0
RENEWAL_RETRY_SECONDS = 5.0

logger = logging.getLogger("brain.client")


class Stream:
    """
    Yields the frames of a subscription, and resumes it on another connection when one is lost.

    It reads only when it is asked: what is not read yet waits at the server.
    """

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
        self._connector = connector
        self._board = board
        self._decimals = decimals
        self._opened: Opened | None = None
        self._backoff = Backoff()
        self._delay = 0.0
        self.has_begun = False
        """True once Brain has granted it."""
        self.is_closed = False
        self._is_resumed = False
        self._user: str | None = None
        self._has_asked_again = False
        """True if the token was not accepted, and another one was asked for."""
        self._renew_at = float("inf")
        self._loop = asyncio.get_running_loop()

    async def next(self) -> Frame:
        """
        Return the next frame; raises Refused or Closed if there is none any more.

        Being cancelled loses nothing.
        """
        while True:
            try:
                opened = self._opened or await self._open()
                frame = await self._receive(opened)
                self._note(frame)
                return frame
            except LinkLost as lost:
                self._lose(lost)
            except BrainClientError as end:
                self._end(end)

    def close(self) -> None:
        """Drop the connection."""
        self.is_closed = True
        self._board.leave(self)
        if self._opened is not None:
            self._connector.drop(self._opened.link)
            self._opened = None

    def abandon(self) -> None:
        """Drop the connection from any thread, if the loop still runs."""
        if self._opened is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.close)

    async def _open(self) -> Opened:
        await asyncio.sleep(self._delay)
        if self._board.status.state != "offline":
            self._report(CONNECTING)
        frame = self.query.frame(self.place.cursor, is_first=not self.has_begun)
        self._is_resumed = "after" in frame or "since" in frame
        try:
            opened = await self._connector.subscribe(frame, decimals=self._decimals)
        except HandshakeRefused as refused:
            raise self._of_handshake(refused) from None
        self._opened = opened
        if opened.link.can_send and not self._connector.tokens.is_fixed:
            self._renew_at = time.monotonic() + renewal_seconds(opened.token)
        return opened

    async def _receive(self, opened: Opened) -> Frame:
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while True:
            now = time.monotonic()
            if now >= self._renew_at:
                opened = await self._renew(opened)
            try:
                async with asyncio.timeout(min(deadline, self._renew_at) - now):
                    return await opened.link.receive()
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise LinkLost(f"nothing came for {WATCHDOG_SECONDS:.0f} s") from None

    async def _renew(self, opened: Opened) -> Opened:
        """Go on with another token, if there is one."""
        self._renew_at = time.monotonic() + RENEWAL_RETRY_SECONDS
        with contextlib.suppress(LinkLost):
            token = await self._connector.ask_token()
            if token is not None and token != opened.token:
                await opened.link.send({"type": "auth", "id": "token", "token": token})
                self._renew_at = time.monotonic() + renewal_seconds(token)
                self._opened = opened = Opened(opened.link, token)
        return opened

    def _note(self, frame: Frame) -> None:
        match frame:
            case {"type": "hello"}:
                self._user = frame["user"]
            case {"type": "subscribed"}:
                self.place.move(frame, is_resumed=self._is_resumed)
                self.has_begun = True
                self._show_progress()
            case {"type": "unsubscribed", "code": "not_allowed"}:
                raise Refused("the right to read the channel was lost", code="not_allowed")
            case {"type": "error"} if frame.get("id") == "subscription":
                raise self._of_error(frame)
            case {"type": "error"}:
                logger.warning("%s: %s", self.query.channel, frame["message"])
            case _:
                self.place.move(frame, is_resumed=self._is_resumed)
                if frame.get("op") in ("live", "reset"):
                    self._show_progress()

    def _show_progress(self) -> None:
        if self.place.is_live:
            self._backoff.reset()
            self._has_asked_again = False
        self._report(LIVE if self.place.is_live else CATCHING_UP)

    def _of_error(self, frame: Frame) -> Exception:
        code, message, advice = frame["code"], frame["message"], frame["advice"]
        if code == "not_allowed" and self._user is None:
            return self._token_refused(Refused(message, code=code, advice=advice))
        if is_retried(code):
            return LinkLost(message, advice=advice)
        return Refused(message, code=code, advice=advice)

    def _of_handshake(self, refused: HandshakeRefused) -> Exception:
        error = Refused(
            f"the server answered {refused.status}: {refused.text}", code=refused.status
        )
        return self._token_refused(error) if refused.status == 401 else error

    def _token_refused(self, refused: Refused) -> Exception:
        """Return what follows if Brain knows no user: a second attempt, or the end."""
        tokens = self._connector.tokens
        if tokens.is_fixed:
            return token_expired() if tokens.has_expired else refused
        if self._has_asked_again:
            return refused
        self._has_asked_again = True
        return LinkLost(refused.message, advice=refused.advice)

    def _lose(self, lost: LinkLost) -> None:
        if self._opened is not None:
            self._connector.drop(self._opened.link)
        self._opened, self._renew_at = None, float("inf")
        end = closed_for_good(lost, is_fixed=self._connector.tokens.is_fixed)
        if end is not None:
            self._end(end)
        self._delay = max(self._backoff.seconds(), lost.retry_after)
        if self._board.status.state != "offline":
            logger.warning("%s: %s; connecting again", self.query.channel, lost.why)
        if lost.code != TOKEN_EXPIRED:
            self._report(Status("offline", lost.why, lost.advice, lost.code))

    def _end(self, end: BrainClientError) -> NoReturn:
        self._report(Status("closed", end.message, end.advice, end.code))
        self.close()
        raise end from None

    def _report(self, status: Status) -> None:
        self._board.report(self, status)
