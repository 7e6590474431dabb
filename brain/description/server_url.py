"""Where clients reach Brain, for the servers of the documents."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

SCHEMES = {"http": False, "ws": False, "https": True, "wss": True}
PREFIX = re.compile(r"(/[A-Za-z0-9._~-]+)*")


@dataclass(frozen=True)
class ServerUrl:
    """The URL of `/`, without its scheme."""

    host: str
    """With the port, unless it is that of the scheme."""
    is_secure: bool = False
    """True where clients use TLS."""
    prefix: str = ""
    """The path below which a proxy serves Brain, as `/brain`."""

    def url(self, protocol: str) -> str:
        """Return the URL for a protocol: `http` or `ws`."""
        return f"{self.scheme(protocol)}://{self.host}{self.prefix}"

    def scheme(self, protocol: str) -> str:
        return f"{protocol}s" if self.is_secure else protocol


def parse_server_url(url: str) -> ServerUrl:
    """Return the parts of a URL. Raises `ValueError`, with what is wrong."""
    parts = urlsplit(url)
    prefix = parts.path.removesuffix("/")
    if parts.scheme not in SCHEMES or not parts.hostname or parts.username is not None:
        raise ValueError("it should be like https://example.org/brain")
    if parts.query or parts.fragment or not PREFIX.fullmatch(prefix):
        raise ValueError("it should be a scheme, a host and a path, and no more")
    return ServerUrl(parts.netloc, SCHEMES[parts.scheme], prefix)
