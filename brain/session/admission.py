"""Which clients are admitted: by their token, the page that they come from, and the quotas."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from starlette.requests import HTTPConnection

from brain.auth.identity import Identity
from brain.auth.origin import is_allowed_origin
from brain.auth.policy import Authority
from brain.auth.token_verifier import token_in
from brain.errors import TokenRefused
from brain.session.connection_limiter import ConnectionLimiter
from brain.session.transport_protocol import Transport


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that has been admitted."""

    transport: Transport
    identity: Identity
    release: Callable[[], None]
    """To be called when the connection has ended; may be called again."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Decides who may connect."""

    authority: Authority
    limiter: ConnectionLimiter
    allowed_origins: Sequence[str] = ()

    async def identify(self, connection: HTTPConnection) -> Identity:
        """Return who a client is: without a token, or with an invalid one, it is anonymous."""
        subprotocols = connection.scope.get("subprotocols", ())
        token = token_in(connection.headers, subprotocols, connection.query_params)
        try:
            return await self.authority.identify_client(token)
        except TokenRefused:
            return self.authority.anonymous()

    def allows_origin(self, connection: HTTPConnection) -> bool:
        """Return False for a web page of another host that is not allowed."""
        headers = connection.headers
        return is_allowed_origin(headers.get("origin"), headers.get("host"), self.allowed_origins)

    def admit(self, connection: HTTPConnection, identity: Identity) -> Callable[[], None]:
        """Count a connection; return what releases it. Raises `TooManyConnections`."""
        address = connection.client.host if connection.client else ""
        return self.limiter.admit(address, identity.user)
