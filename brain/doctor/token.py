"""The token of the client: its form, its times, its signature, and whether Brain accepts it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jwt

from brain.auth.identity import Identity, patterns
from brain.auth.key_set import fetch_key_set, in_thread
from brain.auth.keys import FETCH_SECONDS, keys_of, needs_tokens
from brain.auth.revocations import Revocations
from brain.auth.token_verifier import DEVELOPMENT_TOKEN, TokenVerifier, storable, user_in
from brain.database.connection import first_line
from brain.doctor.address import Place
from brain.doctor.check import check
from brain.doctor.examination import NO_TOKEN, Examination
from brain.doctor.finding import Finding, NotChecked, failure, ok, warning
from brain.doctor.subscribing import ANY_CHANNEL, subscribed
from brain.errors import TokenRefused, UsageError

SOON_SECONDS = 60.0
KEYS = "BRAIN_JWT_SECRET, BRAIN_JWT_KEY_FILE or BRAIN_JWKS_URL"
NO_KEYS = NotChecked(
    "no key is known here that verifies tokens", f"set {KEYS} here as brain serve has it"
)
ANOTHER = "get a new token: from who issues them, or brain token --sub NAME"
# By the beginning of why a verifier refuses a token.
WAYS_OUT: Sequence[tuple[str, str]] = (
    ("its audience", "have it issued for BRAIN_JWT_AUDIENCE, or correct that setting"),
    ("its issuer", "have it issued by BRAIN_JWT_ISSUER, or correct that setting"),
    ("its algorithm", "name its algorithm (alg) in BRAIN_JWT_ALGORITHMS"),
    (
        "it is signed with another key",
        f"have it signed with the key of brain serve; or correct {KEYS}: while a secret is"
        " replaced, BRAIN_JWT_PREVIOUS_SECRET has the old one",
    ),
    (
        "BRAIN_JWKS_URL has no key",
        "its key was withdrawn, or is not published yet: get a new token, or have the key set"
        " publish its key",
    ),
    ("it has no claim exp", "have it issued with exp, and with aud and iss where they are set"),
    ("none of the claims", "have it issued with sub, or name its claim in BRAIN_JWT_USER_CLAIM"),
)


def claims_of(examination: Examination) -> Mapping[str, Any] | None:
    """Return the claims of the token, not verified; None for a word that is no JWT."""
    token = examination.token
    try:
        claims: Mapping[str, Any] = jwt.decode(token, options={"verify_signature": False})
    except (jwt.PyJWTError, ValueError, RecursionError):
        return None
    return claims


def required_claims(examination: Examination) -> Mapping[str, Any]:
    """Return the claims of the token, not verified. Raises `NotChecked`."""
    claims = claims_of(examination)
    if claims is None:
        raise NotChecked("the token has no claims", "see token.form")
    return claims


@check("token.form")
async def form(examination: Examination) -> Finding:
    """There is a token where one is needed, and it is a JSON Web Token."""
    settings = examination.settings
    if examination.request.token is None and needs_tokens(settings):
        readable = ", ".join(settings.public_channels) or "nothing"
        return warning(
            f"no token was passed: without one a client reads {readable} (BRAIN_PUBLIC_CHANNELS)",
            "pass --token-file or BRAIN_TOKEN; clients send Authorization: Bearer …",
        )
    claims = claims_of(examination)
    if claims is not None:
        return ok(
            "it is a JSON Web Token with the claims " + ", ".join(sorted(map(str, claims))),
        )
    if DEVELOPMENT_TOKEN.fullmatch(examination.token) and not needs_tokens(settings):
        return ok("it is a word, as tokens for development are")
    return failure("the token is no JSON Web Token: it is cut off, or something else", ANOTHER)


@check("token.times")
async def times(examination: Examination) -> Finding:
    """The token is valid by now, and for a while."""
    claims, now = required_claims(examination), time.time()
    leeway = examination.settings.jwt_leeway_seconds
    expires_at, begins_at, issued_at = (seconds_in(claims, name) for name in ("exp", "nbf", "iat"))
    if expires_at is None:
        return failure("the token has no claim exp, which Brain requires", ANOTHER)
    left = expires_at - now
    if left <= -leeway:
        return failure(
            f"the token has expired, {-left:,.0f} s ago",
            f"{ANOTHER}; clients with a callable in place of a text get one in time",
            expires_in_seconds=round(left, 1),
        )
    for name, at in (("nbf", begins_at), ("iat", issued_at)):
        if at is not None and at - now > leeway:
            return failure(
                f"the token is not valid yet: its {name} is in {at - now:,.0f} s",
                "synchronise the clocks of who issues tokens and of Brain, or raise"
                " BRAIN_JWT_LEEWAY_SECONDS",
            )
    if left < SOON_SECONDS:
        return warning(f"the token expires in {left:.0f} s", ANOTHER, expires_in_seconds=left)
    return ok(f"the token is valid for {left:,.0f} s", expires_in_seconds=round(left, 1))


def seconds_in(claims: Mapping[str, Any], name: str) -> float | None:
    """Return a claim in seconds since the epoch; infinite if it is no number."""
    value = claims.get(name)
    if value is None:
        return None
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number else math.inf


@check("token.keys", most_seconds=FETCH_SECONDS + 1)
async def keys(examination: Examination) -> Finding:
    """The keys that verify tokens can be read, here."""
    settings = examination.settings
    try:
        found = keys_of(settings)
    except UsageError as error:
        return failure(str(error), f"correct {KEYS}")
    if found is None:
        raise NO_KEYS
    if (url := settings.jwks_url) is not None:
        try:
            _, fetching = in_thread(lambda: fetch_key_set(url, FETCH_SECONDS))
            key_set = await fetching
        except Exception as error:
            return failure(
                f"the key set at BRAIN_JWKS_URL cannot be fetched: {first_line(error)}",
                "correct BRAIN_JWKS_URL, or what it leads to: curl it from the machine of Brain",
            )
        if not key_set:
            return failure(
                "the key set at BRAIN_JWKS_URL has no usable key: all tokens are refused",
                "have it publish the public keys with kid, for use sig",
            )
        return ok(f"BRAIN_JWKS_URL has {len(key_set)} keys", count=len(key_set))
    if settings.jwt_key_file is not None:
        try:
            algorithm = jwt.get_algorithm_by_name(found.algorithms[0])
            algorithm.prepare_key((await found.candidates(""))[0])
        except (jwt.PyJWTError, ValueError, TypeError):
            return failure(
                f"the file of BRAIN_JWT_KEY_FILE holds no public key for {found.algorithms[0]}",
                "put the public key into it, in PEM (openssl pkey -pubout), or correct"
                " BRAIN_JWT_ALGORITHMS",
            )
    return ok("the key that verifies tokens can be used")


@check("token.verified", most_seconds=FETCH_SECONDS + 2)
async def verified(examination: Examination) -> Finding:
    """The settings here accept the token: signature, algorithm, audience, issuer, user."""
    token, settings = examination.token, examination.settings
    try:
        found = keys_of(settings)
    except UsageError:
        raise NotChecked("the keys cannot be used", "see token.keys") from None
    if found is None and claims_of(examination) is not None:
        raise NO_KEYS
    try:
        identity = await TokenVerifier(found, settings).identify(token)
    except TokenRefused as refused:
        reason = refused.reason
        if reason.startswith(("it has expired", "it is not valid yet")):
            return ok("its signature fits the key here; see token.times")
        ways = [way for beginning, way in WAYS_OUT if reason.startswith(beginning)]
        return failure(f"the token is refused: {reason}", ways[0] if ways else ANOTHER)
    examination.shared["identity"] = identity
    return ok(f"the settings here accept the token, as that of the user {identity.user!r}")


def identity_of(examination: Examination) -> Identity:
    """Return who the client is: as verified, by its claims alone, or anonymous."""
    settings = examination.settings
    identity: Identity | None = examination.shared.get("identity")
    if identity is not None:
        return identity
    if examination.request.token is None:
        is_open = not needs_tokens(settings)
        readable = ("*",) if is_open else settings.public_channels
        return Identity(None, math.inf, readable, (), is_unlimited=is_open)
    claims = required_claims(examination)
    try:
        user = user_in(claims, settings.jwt_user_claim)
        readable = patterns(claims.get("channels"), settings.default_channels)
    except TokenRefused:
        raise NotChecked("the token has no user, or wrong claims", "see token.verified") from None
    return Identity(user, math.inf, readable, (), storable({**claims, "sub": user}))


@check("token.revoked")
async def revoked(examination: Examination) -> Finding:
    """The tokens of the user were not revoked since it was issued."""
    if examination.request.token is None:
        raise NO_TOKEN
    identity = identity_of(examination)
    connection = await examination.migrated()
    revocations = Revocations(leeway_seconds=examination.settings.jwt_leeway_seconds)
    await revocations.load(connection)
    issued_at = seconds_in(identity.claims, "iat")
    if identity.user is not None and revocations.is_revoked(identity.user, issued_at):
        return failure(
            f"the tokens of the user {identity.user!r} were revoked after it was issued",
            "have the user log in anew: a token that was issued since then is accepted",
        )
    return ok("it was not revoked")


@check("token.accepted", most_seconds=9)
async def accepted(examination: Examination) -> Finding:
    """The running Brain accepts the token."""
    if examination.request.token is None:
        raise NO_TOKEN
    place = Place.of(examination.url)
    hello = examination.shared.get("hello")
    if hello is None:
        raise NotChecked("no WebSocket is accepted", "see connection.websocket")
    if hello.get("user") is not None:
        return ok(f"Brain accepts the token, as that of the user {hello['user']!r}")
    anonymous = await subscribed(place, None, {"channel": ANY_CHANNEL})
    if anonymous.get("type") == "subscribed":
        return warning(
            "Brain needs no token, and ignores this one: every client reads everything",
            f"set {KEYS} for brain serve, if clients are to read what their token allows",
        )
    return failure(
        "Brain does not accept the token: the client reads public channels alone",
        "see token.times, token.verified and token.revoked; the log of the node says why, once a"
        " minute: Token refused: …",
    )
