"""Opens connections, and closes every one that is left."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from brain.client.address import Address
from brain.client.errors import NeedsWebSocket, Refused
from brain.client.link import HandshakeRefused, Link, LinkLost
from brain.client.tokens import Tokens
from brain.client.transport_choice import TransportChoice
from brain.client.websocket import OPEN_TIMEOUT_SECONDS, WebSocketLink

if TYPE_CHECKING:
    from brain.client.http import Http

logger = logging.getLogger("brain.client")


class Opened(NamedTuple):
    """A connection that has got `hello`."""

    link: Link
    token: str | None
    """With which it was opened, or goes on."""
    user: str | None
    """The user of the token; None without one that Brain accepts."""


class Connector:
    """Opens links to one Brain, and owns them."""

    def __init__(self, address: Address, tokens: Tokens, choice: TransportChoice) -> None:
        self.tokens = tokens
        self._address = address
        self._choice = choice
        self._is_closed = False
        self._http: Http | None = None
        self._links: set[Link] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def subscribe(self, frame: Mapping[str, Any], *, decimals: bool) -> Opened:
        """
        Open a link on which the frames of one subscription come.

        Raises LinkLost, HandshakeRefused, or Refused.
        """
        token = await self.ask_token()
        if self._choice.is_event_stream:
            return await self._open_stream(frame, token, decimals)
        try:
            opened = await self._open_websocket(token, decimals)
        except (LinkLost, HandshakeRefused) as failure:
            if not self._websocket_failed(failure):
                raise
            return await self._open_stream(frame, token, decimals)
        try:
            await opened.link.send({"type": "subscribe", "id": "subscription", **frame})
        except BaseException:
            self.drop(opened.link)
            raise
        return opened

    async def open_websocket(self) -> Opened:
        """Open a WebSocket for requests; raises NeedsWebSocket where none gets through."""
        token = await self.ask_token()
        if not self._choice.is_event_stream:
            try:
                return await self._open_websocket(token, False)
            except (LinkLost, HandshakeRefused) as failure:
                if not self._websocket_failed(failure):
                    raise
        raise NeedsWebSocket(
            "only server-sent events get through to Brain, and they go one way",
            advice="Let the proxy between pass WebSockets",
        )

    async def publish(self, body: Mapping[str, Any]) -> str:
        """
        Publish a message by HTTP, and return the id of its transaction.

        Raises LinkLost if it was not sent, HandshakeRefused, Refused, or ConnectionLost if it may
        have been published.
        """
        token = await self.ask_token()
        try:
            return await self._over_http().publish(self._address.publish, body, token)
        except LinkLost:
            self._choice.event_stream_failed()
            raise
        except ssl.SSLError as error:
            raise tls_refusal(error) from error

    async def ask_token(self) -> str | None:
        """Return the present token; raises LinkLost if the program's callable fails."""
        try:
            return await self.tokens.ask()
        except Exception as error:
            logger.exception("the callable that returns the token failed")
            raise LinkLost(
                f"the callable that returns the token failed: {error!r}",
                advice="Mend it; the client asks it again",
            ) from error

    def drop(self, link: Link) -> None:
        """Close a link, without waiting for it."""
        if link in self._links:
            self._links.discard(link)
            task = asyncio.get_running_loop().create_task(link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all links, and return once that is done."""
        self._is_closed = True
        for link in list(self._links):
            self.drop(link)
        if self._closing:
            await asyncio.wait(set(self._closing))
        if self._http is not None:
            await self._http.close()

    async def _open_websocket(self, token: str | None, decimals: bool) -> Opened:
        try:
            link = await WebSocketLink.open(self._address.websocket, token, decimals=decimals)
        except ssl.SSLError as error:
            raise tls_refusal(error) from error
        opened = await self._greeted(link, token)
        self._choice.websocket_works()
        return opened

    async def _open_stream(
        self, frame: Mapping[str, Any], token: str | None, decimals: bool
    ) -> Opened:
        try:
            url = self._address.event_stream
            link = await self._over_http().open_stream(url, frame, token, decimals=decimals)
            opened = await self._greeted(link, token)
        except LinkLost:
            self._choice.event_stream_failed()
            raise
        except ssl.SSLError as error:
            raise tls_refusal(error) from error
        self._choice.event_stream_works()
        return opened

    async def _greeted(self, link: Link, token: str | None) -> Opened:
        """Return a link once `hello` has come over it."""
        self._links.add(link)
        try:
            if self._is_closed:
                raise LinkLost("the client was closed")
            async with asyncio.timeout(OPEN_TIMEOUT_SECONDS):
                hello = await link.receive()
        except TimeoutError:
            self.drop(link)
            raise LinkLost("the connection was opened, but nothing comes") from None
        except BaseException:
            self.drop(link)
            raise
        return Opened(link, token, hello.get("user"))

    def _websocket_failed(self, failure: LinkLost | HandshakeRefused) -> bool:
        """Return True if an event stream is to be tried."""
        if isinstance(failure, LinkLost) and failure.code is not None:
            # Brain said so over a WebSocket: they get through.
            return False
        return self._choice.websocket_failed(is_refused=isinstance(failure, HandshakeRefused))

    def _over_http(self) -> Http:
        if self._http is None:
            # Few programs need it, and it takes a tenth of a second to import.
            from brain.client.http import Http

            self._http = Http()
        return self._http


def tls_refusal(error: ssl.SSLError) -> Refused:
    """Return the error for a server with which no TLS connection can be made."""
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "Have the certificate signed by an authority that this machine trusts"
        return Refused(
            f"the server's certificate is not valid: {error.verify_message}",
            code="tls",
            advice=advice,
        )
    advice = "If the server speaks no TLS, use http:// or ws://"
    return Refused(f"no TLS connection: {error}", code="tls", advice=advice)
