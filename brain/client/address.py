"""Where Brain's addresses are, by the one URL that a program gives."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from brain.client.errors import InvalidUrl

SCHEMES = {"http": "ws", "ws": "ws", "https": "wss", "wss": "wss"}
HTTP = {"ws": "http", "wss": "https"}


@dataclass(frozen=True, slots=True)
class Address:
    """The addresses of a Brain that is served at a host, below a path."""

    websocket: str
    event_stream: str
    publish: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Raise InvalidUrl unless `url` is an http, https, ws or wss URL."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError as error:
            raise InvalidUrl(f"{url!r} is no URL: {error}", advice=EXAMPLE) from None
        scheme = SCHEMES.get(parts.scheme)
        if scheme is None or not parts.hostname or port == 0:
            raise InvalidUrl(f"{url!r} is no URL of Brain", advice=EXAMPLE)
        if parts.query or parts.fragment or parts.username is not None:
            problem = "a URL of Brain has no user, query or fragment"
            raise InvalidUrl(problem, advice="Give the token as token=…")
        base = f"{parts.netloc}{parts.path.rstrip('/')}"
        http = f"{HTTP[scheme]}://{base}"
        return cls(f"{scheme}://{base}/ws/v1", f"{http}/sse", f"{http}/api/brain/publish")


EXAMPLE = "Give one like https://brain.example.org or http://localhost:5221"
