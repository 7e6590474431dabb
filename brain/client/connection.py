"""Frames across all connections that it takes: a new one is opened when one is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import NoReturn

from brain.client.backoff import Backoff
from brain.client.connector import Connector, Opened
from brain.client.errors import BrainClientError, NeedsWebSocket, Refused
from brain.client.link import Frame, HandshakeRefused, LinkLost
from brain.client.refusals import TOKEN_EXPIRED, closed_for_good, token_expired
from brain.client.status import CONNECTING, LIVE, Status, StatusBoard
from brain.client.tokens import renewal_seconds

# Brain sends something every 25 s at least.
WATCHDOG_SECONDS = 45.0
RENEWAL_RETRY_SECONDS = 5.0

logger = logging.getLogger("brain.client")


class ClosedHere(Exception):
    """The program has closed the connection itself."""


class Connection:
    """
    A connection that is opened anew, with the token of the time, until it is closed for good.

    It reads only when it is asked: what is not read yet waits at the server.
    """

    def __init__(
        self,
        name: str,
        open: Callable[[], Awaitable[Opened]],
        connector: Connector,
        board: StatusBoard,
        on_lost: Callable[[LinkLost], object] | None = None,
    ) -> None:
        """`name` is for the log; `on_lost` is called when a connection is lost."""
        self.opened: Opened | None = None
        self.is_closed = False
        self._name = name
        self._open = open
        self._connector = connector
        self._board = board
        self._on_lost = on_lost
        self._backoff = Backoff()
        self._delay = 0.0
        self._renew_at = float("inf")
        self._has_asked_again = False
        """True if the token was not accepted, and another one was asked for."""
        self._loop = asyncio.get_running_loop()

    async def next(self) -> Frame:
        """
        Return the next frame; raises BrainClientError if there is none any more.

        Raises ClosedHere after `close`. Being cancelled loses no frame.
        """
        while True:
            if self.is_closed:
                raise ClosedHere
            try:
                return await self._receive(self.opened or await self._open_again())
            except LinkLost as lost:
                self.lose(lost)
            except BrainClientError as end:
                self.end(end)

    def works(self) -> None:
        """Note that Brain serves what is wanted: the next attempt comes soon again."""
        self._backoff.reset()
        self._has_asked_again = False
        self.report(LIVE)

    def lose(self, lost: LinkLost) -> None:
        """Drop the link, and go on with another one later; raises Closed if that is useless."""
        self._drop()
        if self.is_closed:
            return
        if self._on_lost is not None:
            self._on_lost(lost)
        end = closed_for_good(lost, is_fixed=self._connector.tokens.is_fixed)
        if end is not None:
            self.end(end)
        self._delay = max(self._backoff.seconds(), lost.retry_after)
        if lost.code == TOKEN_EXPIRED:
            return
        if self._board.status.state != "offline":
            logger.warning("%s: %s; connecting again", self._name, lost.why)
        self.report(Status("offline", lost.why, lost.advice, lost.code))

    def end(self, end: BrainClientError) -> NoReturn:
        """Close for good, and raise why."""
        if not isinstance(end, NeedsWebSocket):
            self.report(Status("closed", end.message, end.advice, end.code))
        self.close()
        raise end from None

    def refused_token(self, refused: Refused) -> BrainClientError | LinkLost:
        """Return what follows if Brain does not accept the token: another attempt, or the end."""
        tokens = self._connector.tokens
        if tokens.is_fixed:
            return token_expired() if tokens.has_expired else refused
        # A callable may return a token of the past for a while: the next attempt asks it again.
        if self._has_asked_again and not tokens.may_have_expired:
            return refused
        self._has_asked_again = True
        return LinkLost(refused.message, advice=refused.advice)

    def report(self, status: Status) -> None:
        self._board.report(self, status)

    def close(self) -> None:
        """Drop the link, and open none any more."""
        self.is_closed = True
        self._board.leave(self)
        self._drop()

    def abandon(self) -> None:
        """Close from any thread, if the loop still runs."""
        if self.opened is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self.close)

    def _drop(self) -> None:
        if self.opened is not None:
            self._connector.drop(self.opened.link)
        self.opened, self._renew_at = None, float("inf")

    async def _open_again(self) -> Opened:
        await asyncio.sleep(self._delay)
        if self._board.status.state != "offline":
            self.report(CONNECTING)
        try:
            self.opened = opened = await self._open()
        except HandshakeRefused as refused:
            raise self._of_handshake(refused) from None
        if opened.link.can_send and not self._connector.tokens.is_fixed:
            self._renew_at = time.monotonic() + renewal_seconds(opened.token)
        return opened

    async def _receive(self, opened: Opened) -> Frame:
        deadline = time.monotonic() + WATCHDOG_SECONDS
        while True:
            if time.monotonic() >= self._renew_at:
                await self._renew(opened)
            seconds = min(deadline, self._renew_at) - time.monotonic()
            try:
                async with asyncio.timeout(seconds):
                    return await opened.link.receive()
            except TimeoutError:
                if time.monotonic() >= deadline:
                    raise LinkLost(f"nothing came for {WATCHDOG_SECONDS:g} s") from None

    async def _renew(self, opened: Opened) -> None:
        """Go on with another token, if there is one."""
        self._renew_at = time.monotonic() + RENEWAL_RETRY_SECONDS
        with contextlib.suppress(LinkLost):
            token = await self._connector.ask_token()
            if token is not None and token != opened.token:
                await opened.link.send({"type": "auth", "id": "token", "token": token})
                self._renew_at = time.monotonic() + renewal_seconds(token)
                self.opened = opened._replace(token=token)

    def _of_handshake(self, refused: HandshakeRefused) -> BrainClientError | LinkLost:
        message = f"the server answered {refused.status}: {refused.text}"
        error = Refused(message, code=refused.status)
        return self.refused_token(error) if refused.status == 401 else error
