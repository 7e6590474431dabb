"""Which clients are admitted: by their token, the page that they come from, and the quotas."""

from __future__ import annotations

from dataclasses import dataclass

from brain.auth.authenticator import Connection
from brain.auth.identity import Identity
from brain.auth.origin import Origins
from brain.auth.policy import Authority
from brain.errors import TokenRefused
from brain.session.connection_limiter import ConnectionLimiter, CountedConnection
from brain.session.transport_protocol import Transport


@dataclass(frozen=True, slots=True)
class Admitted:
    """A client that has been admitted."""

    transport: Transport
    identity: Identity
    counted: CountedConnection
    """To be released when the connection has ended."""
    address: str = ""
    """Where it comes from."""


@dataclass(frozen=True, slots=True)
class Admission:
    """Decides who may connect."""

    authority: Authority
    limiter: ConnectionLimiter
    origins: Origins

    async def identify(self, token: str | None, connection: Connection | None = None) -> Identity:
        """Return who a client is: without a token, or with an invalid one, it is anonymous."""
        try:
            return await self.authority.identify_client(token, connection)
        except TokenRefused:
            return self.authority.anonymous()

    def allows_origin(self, origin: str | None, host: str | None) -> bool:
        """Return False for a web page of another host than `host` that is not allowed."""
        return self.origins.allows(origin, host)

    def admit(self, address: str, identity: Identity) -> CountedConnection:
        """Count a connection, until it is released. Raises `TooManyConnections`."""
        return self.limiter.admit(address, identity.user)
