"""Opens connections, and closes every one that is left."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Mapping
from typing import Any, NamedTuple

from brain.client.address import Address
from brain.client.errors import Refused
from brain.client.link import Link, LinkLost
from brain.client.tokens import Tokens
from brain.client.websocket import WebSocketLink

logger = logging.getLogger("brain.client")


class Opened(NamedTuple):
    """A connection, and the token with which it was opened."""

    link: Link
    token: str | None


class Connector:
    """Opens links to one Brain, and owns them."""

    def __init__(self, address: Address, tokens: Tokens) -> None:
        self.tokens = tokens
        self._address = address
        self._links: set[Link] = set()
        self._closing: set[asyncio.Task[None]] = set()

    async def subscribe(self, frame: Mapping[str, Any], *, decimals: bool) -> Opened:
        """
        Open a link on which the frames of one subscription come.

        Raises LinkLost, HandshakeRefused, or Refused.
        """
        token = await self.ask_token()
        link = await self.open_websocket(token, decimals=decimals)
        await link.send({"type": "subscribe", "id": "subscription", **frame})
        return Opened(link, token)

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

    async def open_websocket(self, token: str | None, *, decimals: bool = False) -> Link:
        """Open a WebSocket; raises LinkLost, HandshakeRefused, or Refused."""
        try:
            link = await WebSocketLink.open(self._address.websocket, token, decimals=decimals)
        except ssl.SSLError as error:
            raise tls_refusal(error) from error
        self._links.add(link)
        return link

    def drop(self, link: Link) -> None:
        """Close a link, without waiting for it."""
        if link in self._links:
            self._links.discard(link)
            task = asyncio.get_running_loop().create_task(link.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Close all links, and return once that is done."""
        for link in list(self._links):
            self.drop(link)
        if self._closing:
            await asyncio.wait(set(self._closing))


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
