"""
Tickets: tokens for the address of a stream, which browsers, proxies and their logs keep.

A ticket is the token, encrypted and authenticated. It opens streams and nothing else, so a leaked
ticket is worth less than a leaked token. It ends with its token: when that expires, is revoked, or
its key is withdrawn.
"""

from __future__ import annotations

import asyncio
import logging
import os
from base64 import urlsafe_b64decode, urlsafe_b64encode

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from brain.database.connection import DATABASE_ERRORS, Queryable, explain
from brain.errors import AccessUndecided, TokenRefused
from brain.log_events import TICKET_REFUSED
from brain.log_limit import LimitedLog
from brain.problems import Problems

NONCE_BYTES = 12
PURPOSE = b"brain ticket"

READ_KEY = "SELECT key FROM brain.ticket_key"

logger = logging.getLogger(__name__)


class Tickets:
    """Issues and opens tickets, with the key that all nodes of a database have."""

    def __init__(self, timeout_seconds: float, problems: Problems | None = None) -> None:
        """`timeout_seconds` is how long the database may take to return the key."""
        self._timeout_seconds = timeout_seconds
        self._problems = problems or Problems()
        self._database: Queryable | None = None
        self._key: AESGCM | None = None
        self._log = LimitedLog(logger)
        self.refused = 0
        """How many tickets were not issued here."""

    def connect(self, database: Queryable) -> None:
        """Read the key from `database`, once it is needed."""
        self._database = database

    async def issue(self, token: str) -> str:
        """Return a ticket for a token. Raises `AccessUndecided`."""
        key = await self._known_key()
        nonce = os.urandom(NONCE_BYTES)
        sealed = key.encrypt(nonce, token.encode(), PURPOSE)
        return urlsafe_b64encode(nonce + sealed).decode().rstrip("=")

    async def token_of(self, ticket: str) -> str:
        """Return the token of a ticket. Raises `TokenRefused` and `AccessUndecided`."""
        key = await self._known_key()
        try:
            data = urlsafe_b64decode(ticket + "=" * (-len(ticket) % 4))
            return key.decrypt(data[:NONCE_BYTES], data[NONCE_BYTES:], PURPOSE).decode()
        except (ValueError, InvalidTag):
            reason = "it was not issued with the key of this database"
            self._log.log(TICKET_REFUSED, reason, "Ticket refused: %s", reason, reason=reason)
            self.refused += 1
            raise TokenRefused(reason, "ticket") from None

    async def _known_key(self) -> AESGCM:
        if self._key is None:
            self._key = AESGCM(await self._read_key())
        return self._key

    async def _read_key(self) -> bytes:
        reason = "there is no key"
        if self._database is not None:
            try:
                async with asyncio.timeout(self._timeout_seconds):
                    rows = await self._database.fetch(READ_KEY)
            except DATABASE_ERRORS as error:
                reason = explain(error)
            else:
                if rows:
                    key: bytes = rows[0]["key"]
                    return key
        self._problems.report("tickets", f"cannot read the key in brain.ticket_key: {reason}")
        raise AccessUndecided("tickets cannot be used at the moment, try again later")
