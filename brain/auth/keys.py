"""
The keys that tokens are signed with: a shared secret, a public key in a file, or a JWKS URL.

Source: RFC 7517 (JSON Web Key) and RFC 8725 (JWT best current practices).
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from functools import partial
from hashlib import sha256
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from pydantic import SecretStr

from brain.auth.key_set import fetch_key_set, in_thread
from brain.database.connection import first_line
from brain.errors import UsageError
from brain.log_events import KEYS_UNREACHABLE, KEYS_WITHDRAWN
from brain.log_limit import LimitedLog
from brain.settings import Settings

LEAST_SECRET_BYTES = 32

# Keys are fetched again after this time, and are still served meanwhile.
REFRESH_SECONDS = 300.0

# Older keys may have been withdrawn: a token with one waits for a fetch, but not for a slow server.
STALE_SECONDS = 600.0
STALE_WAIT_SECONDS = 0.25

# Tokens with invented key ids must not make Brain fetch the keys again and again.
BETWEEN_FETCHES_SECONDS = 10.0
AFTER_FAILURE_SECONDS = 10.0

FETCH_SECONDS = 5.0
# A head that never ends keeps a thread for longer than that.
MOST_THREADS = 8

FAMILIES = {
    "secret": ("HS256", "HS384", "HS512"),
    "public key": (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA"),
    ),
}

logger = logging.getLogger(__name__)


class KeySetStatistics(NamedTuple):
    """Of the keys at a JWKS URL; zeros where there is none."""

    age_seconds: float = 0.0
    """How long ago they were fetched; 0 before that."""
    failed_fetches: int = 0


class Keys(Protocol):
    """Finds the keys, of which one must verify a token."""

    algorithms: Sequence[str]

    def statistics(self) -> KeySetStatistics: ...

    async def candidates(self, token: str) -> Sequence[Any]:
        """Raises `jwt.PyJWTError` if there is none."""
        ...

    def fingerprints(self) -> frozenset[bytes]:
        """Return what differs between these keys and others: see `fingerprint_of`."""
        ...


def fingerprint_of(key: Any) -> bytes:
    """Return a hash of a candidate: equal for equal keys, and nothing that gives the key away."""
    if isinstance(key, jwt.PyJWK):
        key = key.key
    if isinstance(key, str):
        key = key.encode()
    if not isinstance(key, bytes):
        key = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return sha256(key).digest()


class UnknownKey(jwt.InvalidTokenError):
    """The key set has no key with the id of a token."""


class StaticKeys:
    """Secrets, or the public key in a file."""

    def __init__(self, keys: Sequence[str | bytes], algorithms: Sequence[str]) -> None:
        self._keys = keys
        self._fingerprints = frozenset(map(fingerprint_of, keys))
        self.algorithms = algorithms

    def fingerprints(self) -> frozenset[bytes]:
        return self._fingerprints

    def statistics(self) -> KeySetStatistics:
        return KeySetStatistics()

    async def candidates(self, token: str) -> Sequence[str | bytes]:
        return self._keys


class JwksKeys:
    """
    The public keys at a JWKS URL, by their ids (RFC 7517).

    Only a token with an unknown key waits for a slow server. While the URL does not answer, the
    keys that were fetched last stay valid. A key set without a usable key is an answer, too: all
    keys have been withdrawn.
    """

    def __init__(self, url: str, algorithms: Sequence[str]) -> None:
        self._url = url
        self.algorithms = algorithms
        self._keys: dict[str, jwt.PyJWK] = {}
        self._fingerprints: frozenset[bytes] = frozenset()
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._has_failed = False
        self._fetching: asyncio.Task[None] | None = None
        self._threads: list[Thread] = []
        """Each of one fetch: one that never ends must not keep a server from being asked again."""
        self._log = LimitedLog(logger)
        self._failed_fetches = 0

    def statistics(self) -> KeySetStatistics:
        age = time.monotonic() - self._fetched_at
        return KeySetStatistics(age if age < math.inf else 0.0, self._failed_fetches)

    async def candidates(self, token: str) -> Sequence[Any]:
        key_id = jwt.get_unverified_header(token).get("kid")
        if not isinstance(key_id, str):
            raise jwt.InvalidTokenError("no key id")
        now = time.monotonic()
        is_unknown = key_id not in self._keys
        age = now - self._fetched_at
        is_due = is_unknown or age >= REFRESH_SECONDS
        pause = AFTER_FAILURE_SECONDS if self._has_failed else BETWEEN_FETCHES_SECONDS
        if is_due and self._fetching is None and now - self._tried_at >= pause:
            self._fetching = asyncio.create_task(self._fetch(), name="keys of tokens")
        if self._fetching is not None and is_unknown:
            await asyncio.shield(self._fetching)
        elif self._fetching is not None and age >= STALE_SECONDS:
            await asyncio.wait({self._fetching}, timeout=STALE_WAIT_SECONDS)
        if key_id not in self._keys:
            raise UnknownKey
        return (self._keys[key_id],)

    def fingerprints(self) -> frozenset[bytes]:
        return self._fingerprints

    async def fetch(self) -> bool:
        """Fetch the keys now; return False if that is not possible, which is logged."""
        await self._fetch()
        return not self._has_failed

    async def _fetch(self) -> None:
        self._tried_at, self._has_failed = time.monotonic(), True
        try:
            found = await self._fetched()
        except (OSError, HTTPException, ValueError) as error:
            self._failed_fetches += 1
            text = "cannot fetch the keys at BRAIN_JWKS_URL: %s"
            self._log.log(KEYS_UNREACHABLE, type(error).__name__, text, first_line(error))
        else:
            if not found:
                text = "the key set at BRAIN_JWKS_URL has no usable key"
                self._log.log(KEYS_WITHDRAWN, "", text)
            self._keys = found
            self._fingerprints = frozenset(map(fingerprint_of, found.values()))
            self._fetched_at, self._has_failed = self._tried_at, False
        finally:
            self._fetching = None

    async def _fetched(self) -> dict[str, jwt.PyJWK]:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        if len(self._threads) >= MOST_THREADS:
            raise TimeoutError(f"{MOST_THREADS} earlier requests have not ended")
        thread, found = in_thread(partial(fetch_key_set, self._url, FETCH_SECONDS))
        self._threads.append(thread)
        async with asyncio.timeout(FETCH_SECONDS):
            return await found


def keys_of(settings: Settings) -> Keys | None:
    """
    Return the keys that verify tokens; None if the settings name none.

    Raises `UsageError` where the settings contradict each other.
    """
    ways = [settings.jwt_secret, settings.jwt_key_file, settings.jwks_url]
    if len([way for way in ways if way]) > 1:
        raise UsageError(
            "more than one is set: set one of BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE and"
            " BRAIN_JWKS_URL"
        )
    if settings.jwt_secret is not None:
        secrets = [secret_of(settings.jwt_secret, "BRAIN_JWT_SECRET")]
        if settings.jwt_previous_secret is not None:
            secrets.append(secret_of(settings.jwt_previous_secret, "BRAIN_JWT_PREVIOUS_SECRET"))
        return StaticKeys(secrets, allowed_algorithms(settings, "secret"))
    if settings.jwt_previous_secret is not None:
        raise UsageError("BRAIN_JWT_PREVIOUS_SECRET is set without BRAIN_JWT_SECRET")
    if settings.jwt_key_file is not None:
        key = public_key(settings.jwt_key_file)
        return StaticKeys([key], allowed_algorithms(settings, "public key"))
    if settings.jwks_url is not None:
        require_safe(settings.jwks_url)
        return JwksKeys(settings.jwks_url, allowed_algorithms(settings, "public key"))
    return None


def secret_of(setting: SecretStr, variable: str) -> str:
    secret = setting.get_secret_value()
    if len(secret.encode()) < LEAST_SECRET_BYTES:
        raise UsageError(
            f"{variable} must have at least {LEAST_SECRET_BYTES} bytes, and has"
            f" {len(secret.encode())}"
        )
    return secret


def needs_tokens(settings: Settings) -> bool:
    """Return True if clients need a token to read what is not public."""
    return any((settings.jwt_secret, settings.jwt_key_file, settings.jwks_url))


def require_safe(url: str) -> None:
    """Raise `UsageError` for a URL whose keys may be replaced on the way, or with a password."""
    if not is_safe(url):
        scheme = url.partition(":")[0]
        raise UsageError(f"BRAIN_JWKS_URL must begin with https://, and not with {scheme!r}")
    if "@" in urlsplit(url).netloc:
        raise UsageError("BRAIN_JWKS_URL must have no user and no password in it")


def is_safe(url: str) -> bool:
    """Return True if what is fetched from `url` cannot be replaced on the way."""
    try:
        parts = urlsplit(url)
        host = parts.hostname
    except ValueError:
        return False
    if parts.scheme == "http":
        return host in ("127.0.0.1", "::1")
    return parts.scheme == "https" and bool(host)


def allowed_algorithms(settings: Settings, family: str) -> tuple[str, ...]:
    """Return the algorithms, all of one family: a public key must never verify an HMAC."""
    algorithms = settings.jwt_algorithms or FAMILIES[family][:1]
    if not set(algorithms) <= set(FAMILIES[family]):
        raise UsageError(
            f"BRAIN_JWT_ALGORITHMS must be of {', '.join(FAMILIES[family])} with a {family}, and is"
            f" {' '.join(algorithms)!r}"
        )
    return tuple(algorithms)


def public_key(path: Path) -> bytes:
    """Return the public key in a file, in PEM: the same text for the same key."""
    try:
        key = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read the key in {path}: {error.strerror} (BRAIN_JWT_KEY_FILE)"
        ) from error
    if b"PRIVATE KEY" in key:
        raise UsageError(
            f"{path} holds a private key: Brain needs the public one (BRAIN_JWT_KEY_FILE)"
        )
    try:
        return load_pem_public_key(key).public_bytes(
            Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
        )
    except (ValueError, UnsupportedAlgorithm) as error:
        raise UsageError(
            f"{path} holds no public key in PEM, or not all of it: openssl pkey -pubout writes one"
            " (BRAIN_JWT_KEY_FILE)"
        ) from error
