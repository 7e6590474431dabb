"""What an identity may read and publish. Everything that is not allowed is denied."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

from brain.auth.access_function import AccessFunction
from brain.auth.identity import Identity
from brain.auth.keys import keys_of
from brain.auth.revocations import Revocations
from brain.auth.token_verifier import TokenVerifier
from brain.errors import TokenRefused
from brain.message.matching import INTERNAL
from brain.settings import Settings


class Authority:
    """Decides who a client is, and what it may read and publish."""

    def __init__(
        self,
        verifier: TokenVerifier,
        settings: Settings,
        access_function: AccessFunction | None = None,
    ) -> None:
        self._verifier = verifier
        self._settings = settings
        self._access_function = access_function

    @property
    def is_open(self) -> bool:
        """True where no token is needed."""
        return not self._verifier.has_keys

    def anonymous(self) -> Identity:
        """Return the identity of a client without a token."""
        if self.is_open:
            return Identity(None, math.inf, readable=("*",), publishable=("*",), is_unlimited=True)
        return Identity(None, math.inf, readable=self._settings.public_channels, publishable=())

    async def identify(self, token: str) -> Identity:
        """Return the identity of a token. Raises `TokenRefused`, without a reason."""
        return await self._verifier.identify(token)

    async def identify_client(self, token: str | None) -> Identity:
        """
        Return the identity of a client with this token, or without one.

        Where no token is needed, an invalid one is ignored; elsewhere it raises `TokenRefused`.
        """
        if token is None:
            return self.anonymous()
        try:
            return await self.identify(token)
        except TokenRefused:
            if self.is_open:
                return self.anonymous()
            raise

    async def read_predicate(
        self, identity: Identity, names: Iterable[str]
    ) -> Callable[[str], bool]:
        """
        Return a predicate: may this identity read the channel, or row of a channel, that is named?

        This is the one place where it is decided, for subscriptions, snapshots and everything else.
        The predicate answers for `names` only. Raises `AccessUndecided`.
        """
        function = self._access_function
        if identity.is_unlimited or function is None or not function.is_replaced:
            return identity.may_read
        asked = {part for name in names for part in (name, name.partition(":")[0])}
        # PostgreSQL has no text with a zero in it: no channel has such a name.
        possible = {one for one in asked if not one.startswith(INTERNAL) and "\0" not in one}
        readable = await function.channels(identity.claims, frozenset(possible))
        return readable.__contains__


def authority_for(
    settings: Settings,
    access_function: AccessFunction | None = None,
    revocations: Revocations | None = None,
) -> Authority:
    """Return the authority by `settings`; raises `UsageError` like `keys_of`."""
    verifier = TokenVerifier(keys_of(settings), settings, revocations)
    return Authority(verifier, settings, access_function)
