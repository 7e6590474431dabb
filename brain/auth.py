"""
Whose a token is, and what it allows. Denied is whatever is not allowed.

Source: RFC 7519 (JSON Web Token) and RFC 8725 (how to use it).
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import jwt

from brain.errors import TokenRefused, UsageError
from brain.message.topic import INTERNAL
from brain.settings import Settings

MOST_TOKEN_BYTES = 8192
LEAST_SECRET_BYTES = 32
LONGEST_SUBJECT = 255
KEYS_SECONDS = 300.0
# So that tokens with invented key ids do not have the keys fetched again and again.
BETWEEN_FETCHES_SECONDS = 60.0
FETCH_SECONDS = 5.0

FAMILIES = {
    "secret": ("HS256", "HS384", "HS512"),
    "public key": (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    ),
}

# What comes after it, in a subprotocol that a client offers, is its token. It is never echoed.
TOKEN_SUBPROTOCOL = "brain.token."

# What the development mode takes for a token: `test-123` is that of the user `user_test-123`.
DEVELOPMENT_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


Claims = Mapping[str, Any]
"""What a token says, by the names of RFC 7519 and others."""


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is, until when, and what is allowed to them."""

    user: str | None
    """None for a stranger."""
    expires_at: float
    """In seconds since the epoch, without the leeway."""
    hears: tuple[str, ...]
    """Patterns of channels: `*` stands for any text, `?` for a character."""
    publishes: tuple[str, ...]
    claims: Claims = field(default_factory=dict, repr=False)
    is_unlimited: bool = False
    """Whether it is anybody, where nobody has to say who they are."""

    def may_hear(self, channel: str) -> bool:
        return not channel.startswith(INTERNAL) and matches(channel, self.hears)

    def may_publish(self, channel: str) -> bool:
        return not channel.startswith(INTERNAL) and matches(channel, self.publishes)


class Keys(Protocol):
    """Where the key is that a token was signed with."""

    algorithms: Sequence[str]

    async def key_of(self, token: str) -> Any:
        """Raises `jwt.PyJWTError` if there is none."""
        ...


class OneKey:
    """A secret, or the public key in a file."""

    def __init__(self, key: str | bytes, algorithms: Sequence[str]) -> None:
        self._key = key
        self.algorithms = algorithms

    async def key_of(self, token: str) -> str | bytes:
        return self._key


class FetchedKeys:
    """The public keys at a URL, by their ids (RFC 7517)."""

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._client = jwt.PyJWKClient(url, lifespan=KEYS_SECONDS, timeout=FETCH_SECONDS)
        self.algorithms = algorithms
        self._keys: dict[str, Any] = {}
        self._fetched_at = -KEYS_SECONDS
        self._fetching = asyncio.Lock()

    async def key_of(self, token: str) -> Any:
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str):
            raise jwt.InvalidTokenError("no key id")
        async with self._fetching:
            age = time.monotonic() - self._fetched_at
            if age >= KEYS_SECONDS or (key_id not in self._keys and age >= BETWEEN_FETCHES_SECONDS):
                self._fetched_at = time.monotonic()
                found = await asyncio.to_thread(self._client.get_signing_keys, refresh=True)
                self._keys = {key.key_id: key for key in found if key.key_id}
        if key_id not in self._keys:
            raise jwt.InvalidTokenError("unknown key id")
        return self._keys[key_id]


class Rules(Protocol):
    """Who may hear what, where an operator has replaced the rule of the tokens."""

    @property
    def is_replaced(self) -> bool: ...

    async def channels(self, claims: Claims, channels: frozenset[str]) -> frozenset[str]:
        """Return those of `channels` that whoever has these claims may hear."""
        ...


class Revocations(Protocol):
    """Whose tokens are not good any more."""

    def is_revoked(self, user: str, issued_at: float | None) -> bool:
        """Whether a token of `user` is, that was issued then, in seconds since the epoch."""
        ...


class Authority:
    """Knows whose tokens are, and what is allowed to whom."""

    def __init__(
        self,
        keys: Keys | None,
        settings: Settings,
        rules: Rules | None = None,
        revocations: Revocations | None = None,
    ) -> None:
        self._keys = keys
        self._settings = settings
        self._rules = rules
        self._revocations = revocations
        wanted = settings.development_tokens
        is_alone = keys is None and is_loopback(settings.host)
        self._takes_words = is_alone if wanted is None else wanted

    @property
    def is_open(self) -> bool:
        """Whether nobody has to say who they are."""
        return self._keys is None

    def stranger(self) -> Identity:
        """Return what anybody is who does not say who they are."""
        if self.is_open:
            return Identity(None, math.inf, hears=("*",), publishes=("*",), is_unlimited=True)
        return self.outsider()

    def outsider(self) -> Identity:
        """Return what somebody is whose token is no good."""
        return Identity(None, math.inf, hears=self._settings.public_channels, publishes=())

    async def allowed(self, identity: Identity, names: Iterable[str]) -> Callable[[str], bool]:
        """
        Return what says of any of these channels, or rows of channels, whether it may be heard.

        The one place where that is decided: for subscriptions, snapshots and everything else.
        """
        if identity.is_unlimited or self._rules is None or not self._rules.is_replaced:
            return identity.may_hear
        asked = {part for name in names for part in (name, name.partition(":")[0])}
        own = {channel for channel in asked if channel.startswith(INTERNAL)}
        return (await self._rules.channels(identity.claims, frozenset(asked - own))).__contains__

    async def identify(self, token: str) -> Identity:
        """Return whose `token` is. Raises `TokenRefused`, which says no more than that."""
        if self._takes_words and DEVELOPMENT_TOKEN.fullmatch(token):
            return self._tester(token)
        if self._keys is None or len(token) > MOST_TOKEN_BYTES:
            raise TokenRefused
        try:
            claims = await self._claims(token, self._keys)
        except (jwt.PyJWTError, ValueError, OverflowError, RecursionError) as error:
            raise TokenRefused from error
        return self._identity(claims)

    async def _claims(self, token: str, keys: Keys) -> dict[str, Any]:
        header = jwt.get_unverified_header(token)
        if header.get("typ", "JWT") not in ("JWT", "at+jwt") or "crit" in header:
            raise jwt.InvalidTokenError("of another kind")
        settings = self._settings
        return dict(
            jwt.decode(
                token,
                await keys.key_of(token),
                algorithms=list(keys.algorithms),
                audience=settings.jwt_audience,
                issuer=settings.jwt_issuer,
                leeway=settings.jwt_leeway_seconds,
                options={
                    "require": ["exp", "sub"],
                    "verify_aud": settings.jwt_audience is not None,
                    "strict_aud": settings.jwt_audience is not None,
                },
            )
        )

    def _identity(self, claims: dict[str, Any]) -> Identity:
        user, expires_at = claims["sub"], claims["exp"]
        if not isinstance(user, str) or not 0 < len(user) <= LONGEST_SUBJECT:
            raise TokenRefused
        if isinstance(expires_at, bool) or not isinstance(expires_at, int | float):
            raise TokenRefused
        self._refuse_revoked(user, claims.get("iat"))
        return Identity(
            user,
            float(expires_at),
            hears=patterns(claims.get("channels"), self._settings.default_channels),
            publishes=patterns(claims.get("publish"), ()),
            claims=claims,
        )

    def _refuse_revoked(self, user: str, issued_at: float | None) -> None:
        if self._revocations is not None and self._revocations.is_revoked(user, issued_at):
            raise TokenRefused

    def _tester(self, token: str) -> Identity:
        user = f"user_{token}"
        self._refuse_revoked(user, None)
        return Identity(user, math.inf, hears=("*",), publishes=("*",))


def token_in(
    headers: Mapping[str, str], subprotocols: Sequence[str], query: Mapping[str, str]
) -> str | None:
    """
    Return the token that came with a request, if there is one.

    In the header; as a subprotocol, which is what a browser can set beside the URL; or, where
    neither can be set, in the URL.
    """
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    for subprotocol in subprotocols:
        if subprotocol.startswith(TOKEN_SUBPROTOCOL):
            return subprotocol.removeprefix(TOKEN_SUBPROTOCOL)
    return query.get("token")


def is_allowed_origin(origin: str | None, host: str | None, allowed: Sequence[str]) -> bool:
    """
    Whether a page from `origin` may connect: from this host, or from a listed origin.

    A browser always says from where; what is no browser need not.
    """
    if origin is None:
        return True
    if origin in allowed:
        return True
    scheme, separator, rest = origin.partition("://")
    return bool(separator) and scheme in ("http", "https") and rest == host and bool(host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to what listens on `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def authority(
    settings: Settings, rules: Rules | None = None, revocations: Revocations | None = None
) -> Authority:
    """Return who decides by `settings`; raises `UsageError` like `keys_of`."""
    return Authority(keys_of(settings), settings, rules, revocations)


def keys_of(settings: Settings) -> Keys | None:
    """
    Return where the keys are by which tokens are signed; None if none are asked for.

    Raises `UsageError` where the settings contradict each other.
    """
    ways = [settings.jwt_secret, settings.jwt_key_file, settings.jwt_keys_url]
    if len([way for way in ways if way]) > 1:
        raise UsageError("set one of BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE and BRAIN_JWT_KEYS_URL")
    if settings.jwt_secret is not None:
        secret = settings.jwt_secret.get_secret_value()
        if len(secret.encode()) < LEAST_SECRET_BYTES:
            raise UsageError(f"BRAIN_JWT_SECRET must have at least {LEAST_SECRET_BYTES} bytes")
        return OneKey(secret, allowed(settings, "secret"))
    if settings.jwt_key_file is not None:
        return OneKey(public_key(settings.jwt_key_file), allowed(settings, "public key"))
    if settings.jwt_keys_url is not None:
        if not settings.jwt_keys_url.startswith(("https://", "http://127.0.0.1", "http://[::1]")):
            raise UsageError("BRAIN_JWT_KEYS_URL must begin with https://")
        return FetchedKeys(settings.jwt_keys_url, allowed(settings, "public key"))
    return None


def allowed(settings: Settings, family: str) -> tuple[str, ...]:
    """Return the algorithms, all of one family: a public key is no secret."""
    algorithms = settings.jwt_algorithms or FAMILIES[family][:1]
    if not set(algorithms) <= set(FAMILIES[family]):
        raise UsageError(
            f"BRAIN_JWT_ALGORITHMS must be of {', '.join(FAMILIES[family])} with a {family}"
        )
    return tuple(algorithms)


def public_key(path: Path) -> bytes:
    try:
        key = path.read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the key in {path}: {error.strerror}") from error
    if b"PRIVATE KEY" in key:
        raise UsageError(f"{path} holds a private key: Brain needs the public one")
    return key


def patterns(claim: Any, default: Sequence[str]) -> tuple[str, ...]:
    """Return the patterns in a claim: a list of texts, or texts with spaces between them."""
    if claim is None:
        return tuple(default)
    if isinstance(claim, str):
        return tuple(claim.split())
    if isinstance(claim, list) and all(isinstance(pattern, str) for pattern in claim):
        return tuple(claim)
    raise TokenRefused


def matches(channel: str, patterns: Sequence[str]) -> bool:
    # Brackets, which fnmatch knows too, stand for themselves.
    return any(fnmatchcase(channel, pattern.replace("[", "[[]")) for pattern in patterns)
