"""
Checks tokens: signature, claims, expiry, revocation.

Source: RFC 7519 (JSON Web Token) and RFC 8725 (how to use it).
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import jwt
import orjson

from brain.auth.identity import Identity, patterns
from brain.auth.keys import Keys, KeySetStatistics, UnknownKey, fingerprint_of
from brain.auth.revocations import Revocations
from brain.errors import AccessUndecided, TokenRefused
from brain.log_events import TOKEN_REFUSED
from brain.log_limit import LimitedLog
from brain.settings import Settings, host_name, is_loopback_name

MOST_TOKEN_BYTES = 8192
LONGEST_SUBJECT = 255

# A subprotocol that a client offers may be this and its token. It is never echoed.
TOKEN_SUBPROTOCOL = "brain.token."

# Development tokens: `test-123` is that of the user `user_test-123`.
DEVELOPMENT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")

ZERO = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")

logger = logging.getLogger(__name__)


class TokenVerifier:
    """Turns tokens into identities."""

    def __init__(
        self, keys: Keys | None, settings: Settings, revocations: Revocations | None = None
    ) -> None:
        self._keys = keys
        self._settings = settings
        self._revocations = revocations
        self._log = LimitedLog(logger)
        self.refused = Counter(dict.fromkeys(KINDS, 0))
        """How many tokens, by what is in `KINDS`."""
        setting = settings.development_tokens
        is_alone = keys is None and is_loopback_name(host_name(settings.host))
        self._accepts_words = is_alone if setting is None else setting

    @property
    def has_keys(self) -> bool:
        """False where no token is needed."""
        return self._keys is not None

    def key_set(self) -> KeySetStatistics:
        """Return how old the keys of BRAIN_JWKS_URL are."""
        return KeySetStatistics() if self._keys is None else self._keys.statistics()

    async def identify(self, token: str) -> Identity:
        """
        Return the identity of a token.

        Raises `TokenRefused`, without a reason for the client, and `AccessUndecided`.
        """
        if self._accepts_words and DEVELOPMENT_TOKEN.fullmatch(token):
            return self._development_identity(token)
        if self._keys is None:
            raise TokenRefused
        try:
            return await self._identify(token, self._keys)
        except TokenRefused as refusal:
            self.refused[refusal.kind] += 1
            reason = refusal.reason
            self._log.log(TOKEN_REFUSED, reason, "Token refused: %s", reason, reason=reason)
            raise

    @property
    def keys(self) -> Keys | None:
        return self._keys

    def replace_keys(self, keys: Keys | None, settings: Settings) -> bool:
        """Verify tokens by other keys and settings; return True if the keys are other ones."""
        former, self._keys, self._settings = self._keys, keys, settings
        return (
            keys is not None and former is not None and former.fingerprints() != keys.fingerprints()
        )

    def is_withdrawn(self, identity: Identity) -> bool:
        """Return True if the key that its token was signed with is none of the keys any more."""
        if identity.key is None:
            return False
        return self._keys is None or identity.key not in self._keys.fingerprints()

    def is_revoked(self, identity: Identity) -> bool:
        """Return True if the token of an identity has been revoked since it was accepted."""
        if self.is_withdrawn(identity):
            return True
        if identity.user is None or self._revocations is None:
            return False
        return self._revocations.is_revoked(identity.user, identity.claims.get("iat"))

    async def _identify(self, token: str, keys: Keys) -> Identity:
        if len(token) > MOST_TOKEN_BYTES:
            raise TokenRefused(f"it has more than {MOST_TOKEN_BYTES} bytes", "too_long")
        try:
            claims, key = await self._claims(token, keys)
            return self._identity(claims, fingerprint_of(key))
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise refusal_of(error) from error

    async def _claims(self, token: str, keys: Keys) -> tuple[dict[str, Any], Any]:
        """Return the claims of a token, and the key that it is signed with."""
        header = jwt.get_unverified_header(token)
        if header.get("typ", "JWT") not in ("JWT", "at+jwt") or "crit" in header:
            raise jwt.InvalidTokenError("an unknown kind of token")
        candidates = await keys.candidates(token)
        for key in candidates[:-1]:
            with suppress(jwt.InvalidSignatureError):
                return self._decoded(token, key, keys.algorithms), key
        return self._decoded(token, candidates[-1], keys.algorithms), candidates[-1]

    def _decoded(self, token: str, key: Any, algorithms: Sequence[str]) -> dict[str, Any]:
        settings = self._settings
        return dict(
            jwt.decode(
                token,
                key,
                algorithms=list(algorithms),
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway_seconds,
                options={
                    "require": ["exp"],
                    "verify_sub": False,  # the user may be in another claim
                    "verify_aud": settings.jwt_audience is not None,
                    "strict_aud": settings.jwt_audience is not None,
                },
            )
        )

    def _identity(self, claims: dict[str, Any], key: bytes) -> Identity:
        times = {name: seconds(claims[name]) for name in ("exp", "iat", "nbf") if name in claims}
        user = user_in(claims, self._settings.jwt_user_claim)
        self.refuse_revoked(user, times.get("iat"))
        return Identity(
            user,
            times["exp"],
            readable=patterns(claims.get("channels"), self._settings.default_channels),
            publishable=patterns(claims.get("publish"), ()),
            # An access function finds the user in one place, whatever the token calls it.
            claims=storable({**claims, "sub": user}),
            key=key,
        )

    def refuse_revoked(self, user: str, issued_at: float | None) -> None:
        """Raise `TokenRefused` if it was revoked, `AccessUndecided` if that is not known."""
        if self._revocations is None:
            return
        if not self._revocations.are_known:
            raise AccessUndecided("it is not known yet which tokens are revoked, try again later")
        if self._revocations.is_revoked(user, issued_at):
            raise TokenRefused("it was revoked", "revoked")

    def _development_identity(self, token: str) -> Identity:
        user = f"user_{token}"
        self.refuse_revoked(user, None)
        return Identity(user, math.inf, readable=("*",), publishable=("*",), claims={"sub": user})


REASONS: Sequence[tuple[type[Exception], str, str]] = (
    (jwt.ExpiredSignatureError, "expired", "it has expired"),
    (jwt.ImmatureSignatureError, "not_yet_valid", "it is not valid yet: compare the clocks"),
    (jwt.InvalidAudienceError, "audience", "its audience (aud) is not BRAIN_JWT_AUDIENCE"),
    (jwt.InvalidIssuerError, "issuer", "its issuer (iss) is not BRAIN_JWT_ISSUER"),
    (jwt.InvalidAlgorithmError, "algorithm", "its algorithm is not one of BRAIN_JWT_ALGORITHMS"),
    (
        jwt.InvalidSignatureError,
        "signature",
        "it is signed with another key than that of BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE or"
        " BRAIN_JWKS_URL",
    ),
    (UnknownKey, "unknown_key", "BRAIN_JWKS_URL has no key with its key id (kid)"),
    (jwt.MissingRequiredClaimError, "claim_missing", "it has no claim exp, or lacks aud or iss"),
)
"""
Why a token is refused, in a word and in a sentence: nothing of the token itself may reach the log.
"""
KINDS = (*(kind for _, kind, _ in REASONS), "malformed", "revoked", "too_long", "user")
"""All words for it."""


def refusal_of(error: Exception) -> TokenRefused:
    for of, kind, text in REASONS:
        if isinstance(error, of):
            return TokenRefused(text, kind)
    return TokenRefused("it is malformed")


def seconds(claim: Any) -> float:
    """Return the seconds since the epoch in a claim: PyJWT accepts texts and booleans as well."""
    if isinstance(claim, bool) or not isinstance(claim, int | float):
        raise TokenRefused
    return float(claim)


def user_in(claims: Mapping[str, Any], names: Sequence[str]) -> str:
    """
    Return the user of a token: in the first of these claims that it has.

    It is a text that PostgreSQL and JSON can hold; in a claim other than `sub` also an integer.
    """
    name = next((name for name in names if name in claims), None)
    claim = None if name is None else claims[name]
    if name != "sub" and isinstance(claim, int) and not isinstance(claim, bool):
        claim = str(claim)
    if not isinstance(claim, str) or not 0 < len(claim) <= LONGEST_SUBJECT or "\0" in claim:
        raise TokenRefused("none of the claims in BRAIN_JWT_USER_CLAIM has a user", "user")
    claim.encode()
    return claim


def storable(claims: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return those claims that PostgreSQL's jsonb can hold; the others count as missing.

    It holds no zeros and no halves of surrogate pairs in texts, and Brain passes it integers of up
    to 64 bits.
    """
    return {name: claim for name, claim in claims.items() if is_storable({name: claim})}


def is_storable(value: Any) -> bool:
    try:
        text = orjson.dumps(value)
    except TypeError:
        return False
    # After an even number of backslashes, as in the text "\\u0000", it is no zero.
    return ZERO.search(text) is None


def token_in(
    headers: Mapping[str, str], subprotocols: Sequence[str], query: Mapping[str, str]
) -> str | None:
    """
    Return the token of a request, if there is one.

    It is in the header `Authorization`; or in a subprotocol, which a browser can set; or, where
    neither can be set, in the URL.
    """
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    for subprotocol in subprotocols:
        if subprotocol.startswith(TOKEN_SUBPROTOCOL):
            return subprotocol.removeprefix(TOKEN_SUBPROTOCOL)
    return query.get("token")
