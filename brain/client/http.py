"""Brain over HTTP: streams of events, and publishing."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import urlencode

from httpx2 import (
    AsyncClient,
    ConnectError,
    ConnectTimeout,
    EventSource,
    Limits,
    Response,
    ServerSentEvent,
    Timeout,
    TransportError,
)

from brain.client.errors import ConnectionLost, NeedsWebSocket
from brain.client.exact_json import parse
from brain.client.link import Frame, HandshakeRefused, LinkLost, refusal, unreachable

CONNECT_TIMEOUT_SECONDS = 10.0
# Brain sends a comment every 25 s at least.
READ_TIMEOUT_SECONDS = 45.0


class EventStreamLink:
    """Frames of one subscription as server-sent events."""

    can_send = False

    def __init__(self, response: Response, decimals: bool) -> None:
        self._response = response
        self._decimals = decimals
        # The longest row is Brain's to bound.
        self._events: AsyncIterator[ServerSentEvent] = aiter(
            EventSource(response, max_event_size=None)
        )
        self._reading: asyncio.Task[Frame] | None = None
        """Goes on if `receive` is cancelled: cancelling it would end the stream."""

    async def receive(self) -> Frame:
        """Return the next frame."""
        reading = self._reading = self._reading or asyncio.create_task(self._next())
        await asyncio.wait({reading})
        self._reading = None
        return reading.result()

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Raise NeedsWebSocket: frames only come."""
        raise NeedsWebSocket("only server-sent events get through to Brain")

    async def close(self) -> None:
        """Close the connection."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.wait({self._reading})
        with contextlib.suppress(TransportError):
            await self._response.aclose()

    async def _next(self) -> Frame:
        try:
            async for event in self._events:
                if event.data:
                    return self._frame(event.data)
        except TransportError as error:
            raise LinkLost(f"the stream broke: {error or type(error).__name__}") from error
        raise LinkLost("the server ended the stream")

    def _frame(self, text: str) -> Frame:
        frame: Frame = parse(text, decimals=self._decimals)
        if frame.get("type") == "closed":
            raise LinkLost(frame["reason"], code=frame["code"])
        return frame


class Http:
    """A client of HTTP; its connections are shared."""

    def __init__(self) -> None:
        timeout = Timeout(READ_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS, pool=None)
        limits = Limits(max_connections=None)
        self._client = AsyncClient(timeout=timeout, limits=limits, follow_redirects=True)

    async def open_stream(
        self, url: str, frame: Mapping[str, Any], token: str | None, *, decimals: bool
    ) -> EventStreamLink:
        """Open a stream; raises LinkLost, HandshakeRefused or ssl.SSLError."""
        headers = {"Accept": "text/event-stream", **authorization(token)}
        request = self._client.build_request("GET", f"{url}?{parameters(frame)}", headers=headers)
        with translated_errors():
            response = await self._client.send(request, stream=True)
            if response.status_code != 200:
                raise await refused(response)
        return EventStreamLink(response, decimals)

    async def publish(self, url: str, body: Mapping[str, Any], token: str | None) -> str:
        """
        Publish a message, and return the id of its transaction.

        Raises LinkLost if it was not sent, HandshakeRefused, ssl.SSLError, or ConnectionLost if it
        may have been published.
        """
        headers = {"Content-Type": "application/json", **authorization(token)}
        request = self._client.build_request("POST", url, headers=headers, content=json.dumps(body))
        try:
            response = await self._client.send(request)
        except (ConnectError, ConnectTimeout) as error:
            raise connect_failure(error) from error
        except TransportError as error:
            problem = "the connection broke before the answer came"
            advice = "It may have been published: publish again only if twice does no harm"
            raise ConnectionLost(problem, advice=advice) from error
        if response.status_code != 200:
            raise await refused(response)
        txid: str = response.json()["txid"]
        return txid

    async def close(self) -> None:
        """Close the connections that are kept."""
        await self._client.aclose()


def parameters(frame: Mapping[str, Any]) -> str:
    """Return the keys of `subscribe` as the query of an address."""
    return urlencode(
        {
            name: value if isinstance(value, str) else json.dumps(value)
            for name, value in frame.items()
        }
    )


def authorization(token: str | None) -> dict[str, str]:
    """Return the header with the token, if there is one."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


@contextlib.contextmanager
def translated_errors() -> Any:
    """Raise LinkLost, or ssl.SSLError, for what goes wrong with the connection."""
    try:
        yield
    except TransportError as error:
        raise connect_failure(error) from error


def connect_failure(error: TransportError) -> LinkLost | ssl.SSLError:
    """Return the TLS error below an error, or what it is for a client."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return cause
        cause = cause.__cause__ or cause.__context__
    return unreachable(str(error.request.url), error)


async def refused(response: Response) -> LinkLost | HandshakeRefused:
    """Return what a response means that is not the one that was asked for."""
    with contextlib.suppress(TransportError):
        await response.aread()
    await response.aclose()
    text = response.text if response.is_stream_consumed else ""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        text = str(json.loads(text)["error"])
    return refusal(response.status_code, text, response.headers.get("Retry-After"))
