"""What an identity may read and publish. Everything that is not allowed is denied."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from brain.auth.access_function import AccessFunction
from brain.auth.authenticator import Authenticator, Connection, authenticated
from brain.auth.identity import Identity
from brain.auth.keys import Keys, KeySetStatistics, keys_of, needs_tokens
from brain.auth.revocations import Revocations
from brain.auth.row_rules import RowRules
from brain.auth.token_verifier import TokenVerifier
from brain.errors import TokenRefused, UsageError
from brain.log_limit import LimitedLog
from brain.message.matching import INTERNAL, ReadAccess, RowAccess
from brain.settings import Settings

logger = logging.getLogger(__name__)


class AuthorityStatistics(NamedTuple):
    refused: Mapping[str, int]
    """How many tokens, by why; a live view."""
    key_set: KeySetStatistics


class Authority:
    """Decides who a client is, and what it may read and publish."""

    def __init__(
        self,
        verifier: TokenVerifier,
        settings: Settings,
        access_function: AccessFunction | None = None,
        row_rules: RowRules | None = None,
        authenticator: Authenticator | None = None,
    ) -> None:
        self._authenticator = authenticator
        self._row_rules = row_rules
        self._verifier = verifier
        self._settings = settings
        self._access_function = access_function
        self._log = LimitedLog(logger)

    @property
    def is_open(self) -> bool:
        """True where no token is needed."""
        return self._authenticator is None and not self._verifier.has_keys

    @property
    def has_authenticator(self) -> bool:
        """True where an application says who a client is, and not Brain's tokens."""
        return self._authenticator is not None

    def statistics(self) -> AuthorityStatistics:
        return AuthorityStatistics(self._verifier.refused, self._verifier.key_set())

    def anonymous(self) -> Identity:
        """Return the identity of a client without a token."""
        if self.is_open:
            return Identity(None, math.inf, readable=("*",), publishable=("*",), is_unlimited=True)
        return Identity(None, math.inf, readable=self._settings.public_channels, publishable=())

    async def identify(self, token: str) -> Identity:
        """Return the identity of a token. Raises `TokenRefused` and `AccessUndecided`."""
        if self._authenticator is None:
            return await self._verifier.identify(token)
        return await self._authenticated(self._authenticator, None, token)

    @property
    def keys(self) -> Keys | None:
        """What verifies tokens."""
        return self._verifier.keys

    def replace_keys(self, keys: Keys | None, settings: Settings) -> bool:
        """Verify tokens by other keys and settings; return True if the keys are other ones."""
        return self._verifier.replace_keys(keys, settings)

    def is_withdrawn(self, identity: Identity) -> bool:
        """Return True if the key that its token was signed with is none of the keys any more."""
        return self._verifier.is_withdrawn(identity)

    def is_revoked(self, identity: Identity) -> bool:
        """
        Return True if the token of an identity has been revoked since it was accepted.

        To be asked after everything that was awaited since then.
        """
        return self._verifier.is_revoked(identity)

    async def identify_client(
        self, token: str | None, connection: Connection | None = None
    ) -> Identity:
        """
        Return the identity of a client with this token, or without one.

        Where no token is needed, an invalid one is ignored; elsewhere it raises `TokenRefused`.
        """
        if self._authenticator is not None:
            return await self._authenticated(self._authenticator, connection, token)
        if token is None:
            return self.anonymous()
        try:
            return await self.identify(token)
        except TokenRefused:
            if self.is_open:
                return self.anonymous()
            raise

    async def _authenticated(
        self, authenticator: Authenticator, connection: Connection | None, token: str | None
    ) -> Identity:
        identity = await authenticated(authenticator, connection, token, self._settings, self._log)
        if identity is None or identity.user is None:
            if token is None:
                return self.anonymous()
            raise TokenRefused("the authenticator does not know it")
        self._verifier.refuse_revoked(identity.user, identity.claims.get("iat"))
        return identity

    async def read_access(self, identity: Identity, names: Iterable[str]) -> ReadAccess:
        """
        Return what this identity may read of the channels, and rows of channels, that are named.

        This is the one place where it is decided, for subscriptions, snapshots and everything else.
        The result answers for `names` only. Raises `AccessUndecided`.
        """
        asked = {part for name in names for part in (name, name.partition(":")[0])}
        # PostgreSQL has no text with a zero in it: no channel has such a name.
        possible = {one for one in asked if not one.startswith(INTERNAL) and "\0" not in one}
        function = self._access_function
        may_read: Callable[[str], bool] = identity.may_read
        if not identity.is_unlimited and function is not None and function.is_replaced:
            readable = await function.channels(identity.claims, frozenset(possible))
            may_read = readable.__contains__
        rows: Mapping[str, RowAccess] = {}
        if self._row_rules is not None:
            found = {one for one in possible if may_read(one)}
            # Who may read the row `orders:1` alone does so within the rules of `orders`.
            found |= {name.partition(":")[0] for name in found}
            rows = await self._row_rules.access(identity.claims, found)
        return Decided(may_read, rows)


@dataclass(frozen=True, slots=True)
class Decided:
    """What an identity may read, as `ReadAccess` has it."""

    may_read: Callable[[str], bool]
    row_access: Mapping[str, RowAccess] = field(default_factory=dict)

    def __call__(self, name: str) -> bool:
        return self.may_read(name)

    def rows(self, channel: str) -> RowAccess | None:
        return self.row_access.get(channel)


def authority_for(
    settings: Settings,
    access_function: AccessFunction | None = None,
    revocations: Revocations | None = None,
    row_rules: RowRules | None = None,
    authenticator: Authenticator | None = None,
) -> Authority:
    """
    Return the authority by `settings`, or by an authenticator instead of tokens.

    Raises `UsageError` like `keys_of`.
    """
    if authenticator is not None and needs_tokens(settings):
        raise UsageError(
            "an authenticator takes the place of Brain's tokens: leave out BRAIN_JWT_SECRET,"
            " BRAIN_JWT_KEY_FILE and BRAIN_JWKS_URL"
        )
    verifier = TokenVerifier(keys_of(settings), settings, revocations)
    return Authority(verifier, settings, access_function, row_rules, authenticator)
