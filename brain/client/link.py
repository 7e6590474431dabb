"""One connection to Brain, whichever way its frames come."""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any, Protocol
from urllib.parse import urlsplit

Frame = dict[str, Any]


class LinkLost(Exception):
    """The connection has ended, or could not be opened; another attempt may help."""

    def __init__(
        self,
        why: str,
        *,
        code: int | None = None,
        retry_after: float = 0.0,
        advice: str | None = None,
    ) -> None:
        super().__init__(why)
        self.why = why
        self.code = code
        """The close code, if Brain sent one."""
        self.retry_after = retry_after
        """How many seconds the server asks to wait."""
        self.advice = advice


class HandshakeRefused(Exception):
    """The server answered with an HTTP status that another attempt would not change."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class Link(Protocol):
    """A connection; the first frame is `hello`."""

    can_send: bool
    """False if frames only come."""

    async def receive(self) -> Frame:
        """Return the next frame; raises LinkLost. Being cancelled loses no frame."""
        ...

    async def send(self, frame: Mapping[str, Any]) -> None:
        """Send a frame; raises LinkLost."""
        ...

    async def close(self) -> None: ...


def refusal(status: int, text: str, retry_after: str | None) -> LinkLost | HandshakeRefused:
    """Return what a response means that is neither a WebSocket nor a stream."""
    sentence = text.strip().splitlines()[0][:500] if text.strip() else f"HTTP status {status}"
    if status < 500 and status not in (408, 425, 429):
        return HandshakeRefused(status, sentence)
    try:
        seconds = max(float(retry_after or 0), 0.0)
    except ValueError:
        # A date: the back-off has to do.
        seconds = 0.0
    return LinkLost(f"the server answered {status}: {sentence}", retry_after=seconds)


def unreachable(url: str, error: BaseException) -> LinkLost:
    """Return what it means that connecting to `url` ended in `error`."""
    host = urlsplit(url).netloc
    if any(f"[Errno {errno.ECONNREFUSED}]" in text for text in texts(error)):
        return LinkLost(f"connecting to {host} failed: refused", advice="Is Brain running there?")
    return LinkLost(f"connecting to {host} failed: {str(error) or 'it took too long'}")


def texts(error: BaseException) -> Iterator[str]:
    """Yield what an error, and those that caused it, say; each address of a host has its own."""
    yield str(error)
    if isinstance(error, BaseExceptionGroup):
        for one in error.exceptions:
            yield from texts(one)
    if cause := error.__cause__ or error.__context__:
        yield from texts(cause)
