from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from random import Random
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from brain.auth.identity import Identity
from brain.auth.key_set import fetch_key_set, in_thread
from brain.auth.keys import JwksKeys, UnknownKey, keys_of
from brain.auth.policy import Authority, Decided, authority_for
from brain.auth.revocations import Revocations
from brain.auth.token_verifier import MOST_TOKEN_BYTES
from brain.errors import TokenRefused, UsageError
from brain.message.matching import requested_topics
from brain.settings import Settings

SECRET = "0123456789abcdef0123456789abcdef"
OTHER_SECRET = "fedcba9876543210fedcba9876543210"
RSA_KEY = rsa.generate_private_key(65537, 2048)
OTHER_RSA_KEY = rsa.generate_private_key(65537, 2048)
RSA_PUBLIC = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def settings(**given: Any) -> Settings:
    return Settings.model_validate({"jwt_secret": SECRET, **given})


def claims(**others: Any) -> dict[str, Any]:
    given = {"sub": "ann", "exp": int(time.time()) + 60, **others}
    return {name: value for name, value in given.items() if value is not ...}


def token(
    key: Any = SECRET,
    algorithm: str = "HS256",
    headers: dict[str, Any] | None = None,
    **others: Any,
) -> str:
    return jwt.encode(claims(**others), key, algorithm, headers=headers)


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def by_hand(
    header: bytes | dict[str, Any],
    payload: bytes | dict[str, Any],
    secret: bytes = SECRET.encode(),
) -> str:
    """Return a token with any header and payload, and a valid signature of HS256."""
    parts = [
        part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, payload)
    ]
    signed = ".".join(map(base64url, parts))
    signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64url(signature)}"


HEADER = {"alg": "HS256", "typ": "JWT"}


def identify(given: str, **others: Any) -> Identity:
    return asyncio.run(authority_for(settings(**others)).identify(given))


def refused(given: str, authority: Authority) -> None:
    with pytest.raises(TokenRefused) as refusal:
        asyncio.run(authority.identify(given))
    assert str(refusal.value) == ""


def test_a_valid_token_has_a_user_and_readable_channels() -> None:
    identity = identify(token(channels=["tasks", "agents.*"], publish="news"))

    assert identity.user == "ann"
    assert identity.expires_at == pytest.approx(time.time() + 60, abs=5)
    assert [identity.may_read(c) for c in ("tasks", "agents.a", "agents", "other")] == [
        True,
        True,
        False,
        False,
    ]
    assert identity.may_publish("news")
    assert not identity.may_publish("tasks")


def test_a_token_without_channels_reads_the_default_channels_and_publishes_nothing() -> None:
    assert identify(token()).may_read("anything")
    assert not identify(token(), default_channels="a b").may_read("anything")
    assert identify(token(), default_channels="a, b").may_read("b")
    assert not identify(token(channels=[])).may_read("tasks")
    assert not identify(token()).may_publish("tasks")


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512"])
def test_each_algorithm_of_a_secret_can_be_chosen(algorithm: str) -> None:
    long = SECRET * 2
    given = token(long, algorithm)
    assert identify(given, jwt_secret=long, jwt_algorithms=algorithm).user == "ann"


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (RSA_KEY, "RS256"),
        (RSA_KEY, "PS512"),
        (ec.generate_private_key(ec.SECP256R1()), "ES256"),
        (ec.generate_private_key(ec.SECP384R1()), "ES384"),
        (ed25519.Ed25519PrivateKey.generate(), "EdDSA"),
    ],
)
def test_a_public_key_in_a_file_verifies_tokens(key: Any, algorithm: str, tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    given: Any = {"jwt_secret": None, "jwt_key_file": path, "jwt_algorithms": algorithm}
    assert identify(token(key, algorithm), **given).user == "ann"


NOW = int(time.time())

BAD: dict[str, Callable[[], str]] = {
    "nothing": lambda: "",
    "no token": lambda: "abc123",
    "dots": lambda: "..",
    "many dots": lambda: "a.b.c.d.e",
    "spaces": lambda: " " + token(),
    "line break": lambda: token() + "\n.",
    "NUL": lambda: "\0" + token(),
    "another secret": lambda: token(OTHER_SECRET),
    "empty secret": lambda: by_hand(HEADER, claims(), secret=b""),
    "cut signature": lambda: token()[:-5],
    "no signature": lambda: token().rpartition(".")[0] + ".",
    "another payload": lambda: ".".join(
        (
            token().split(".")[0],
            base64url(json.dumps(claims(sub="eve")).encode()),
            token().split(".")[2],
        )
    ),
    "alg none": lambda: jwt.encode(claims(), "", "none"),
    "alg None": lambda: by_hand({"alg": "None"}, claims()),
    "alg nOnE": lambda: by_hand({"alg": "nOnE"}, claims()),
    "alg none, signed": lambda: by_hand({"alg": "none"}, claims()),
    "no alg": lambda: by_hand({"typ": "JWT"}, claims()),
    "alg null": lambda: by_hand({"alg": None}, claims()),
    "alg list": lambda: by_hand({"alg": ["HS256"]}, claims()),
    "alg lower case": lambda: by_hand({"alg": "hs256"}, claims()),
    "alg not chosen": lambda: token(SECRET * 2, "HS512"),
    "another family": lambda: token(RSA_KEY, "RS256"),
    "crit": lambda: by_hand({**HEADER, "crit": ["exp"]}, claims()),
    "crit unknown": lambda: by_hand({**HEADER, "crit": ["x"], "x": 1}, claims()),
    "crit empty": lambda: by_hand({**HEADER, "crit": []}, claims()),
    "b64 false": lambda: by_hand({**HEADER, "b64": False, "crit": ["b64"]}, claims()),
    "another type": lambda: token(headers={"typ": "logout+jwt"}),
    "type is a number": lambda: by_hand({**HEADER, "typ": 7}, claims()),
    "encrypted": lambda: "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIn0..a.b.c",
    "no exp": lambda: token(exp=...),
    "exp null": lambda: by_hand(HEADER, claims(exp=None)),
    "expired": lambda: token(exp=NOW - 3600),
    "exp a text": lambda: by_hand(HEADER, claims(exp=str(NOW + 60))),
    "exp a word": lambda: by_hand(HEADER, claims(exp="tomorrow")),
    "exp true": lambda: by_hand(HEADER, claims(exp=True)),
    "exp a list": lambda: by_hand(HEADER, claims(exp=[NOW + 60])),
    "exp 10**400": lambda: by_hand(HEADER, claims(exp=10**400)),
    "exp negative": lambda: by_hand(HEADER, claims(exp=-1)),
    "exp 1e400": lambda: by_hand(HEADER, b'{"sub": "ann", "exp": 1e400}'),
    "exp NaN": lambda: by_hand(HEADER, b'{"sub": "ann", "exp": NaN}'),
    "nbf in the future": lambda: token(nbf=NOW + 3600),
    "nbf a text": lambda: by_hand(HEADER, claims(nbf="soon")),
    "nbf a number as text": lambda: by_hand(HEADER, claims(nbf="1")),
    "nbf true": lambda: by_hand(HEADER, claims(nbf=True)),
    "nbf -10**400": lambda: by_hand(HEADER, claims(nbf=-(10**400))),
    "nbf null": lambda: by_hand(HEADER, claims(nbf=None)),
    "iat a number as text": lambda: by_hand(HEADER, claims(iat="1")),
    "iat true": lambda: by_hand(HEADER, claims(iat=True)),
    "iat -10**400": lambda: by_hand(HEADER, claims(iat=-(10**400))),
    "iat a list": lambda: by_hand(HEADER, claims(iat=[1])),
    "iat in the future": lambda: token(iat=NOW + 3600),
    "iat a text": lambda: by_hand(HEADER, claims(iat="today")),
    "no sub": lambda: token(sub=...),
    "sub empty": lambda: token(sub=""),
    "sub null": lambda: by_hand(HEADER, claims(sub=None)),
    "sub a number": lambda: by_hand(HEADER, claims(sub=7)),
    "sub a list": lambda: by_hand(HEADER, claims(sub=["ann"])),
    "sub with NUL": lambda: token(sub="ann\0"),
    "sub half a character": lambda: token(sub="ann\ud800"),
    "sub too long": lambda: token(sub="a" * 256),
    "payload a list": lambda: by_hand(HEADER, b'["sub"]'),
    "payload no JSON": lambda: by_hand(HEADER, b"sub=ann"),
    "payload not UTF-8": lambda: by_hand(HEADER, b'{"sub": "\xff"}'),
    "payload nested": lambda: by_hand(HEADER, b"[" * 5000),
    "payload empty": lambda: by_hand(HEADER, b""),
    "header no JSON": lambda: by_hand(b"HS256", claims()),
    "header a list": lambda: by_hand(b"[]", claims()),
    "header empty": lambda: by_hand(b"", claims()),
    "kid a path": lambda: token(OTHER_SECRET, headers={"kid": "../../../../dev/null"}),
    "kid SQL": lambda: token(OTHER_SECRET, headers={"kid": "' UNION SELECT 'a"}),
    "kid a number": lambda: by_hand({**HEADER, "kid": 7}, claims()),
    "jku": lambda: token(OTHER_SECRET, headers={"jku": "http://127.0.0.1/keys"}),
    "jwk": lambda: token(OTHER_SECRET, headers={"jwk": {"kty": "oct", "k": "AA"}}),
    "x5u": lambda: token(OTHER_SECRET, headers={"x5u": "http://127.0.0.1/keys"}),
    "too long": lambda: token(more="x" * MOST_TOKEN_BYTES),
    "a megabyte": lambda: by_hand({**HEADER, "x": "y" * 2**20}, claims()),
    "channels a number": lambda: token(channels=7),
    "channels of numbers": lambda: token(channels=[7]),
    "channels an object": lambda: token(channels={"tasks": True}),
    "channels of lists": lambda: token(channels=[["tasks"]]),
    "publish an object": lambda: token(publish={"tasks": True}),
    "publish of null": lambda: token(publish=[None]),
    "publish a number": lambda: token(publish=7),
    "a tester's": lambda: "test-123",
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_token_is_refused_without_a_reason(name: str) -> None:
    refused(BAD[name](), authority_for(settings()))


@pytest.mark.parametrize(
    ("given", "user"),
    [
        ({"sub": "ann"}, "ann"),
        ({"sub": ..., "userId": "ann", "username": "Ann", "role": "admin"}, "ann"),
        ({"sub": ..., "userId": 17}, "17"),
        ({"sub": "ann", "userId": "bob"}, "ann"),
    ],
)
def test_the_user_is_in_the_claim_sub_or_else_in_userid(given: dict[str, Any], user: str) -> None:
    identity = identify(token(iat=int(time.time()), **given))

    assert identity.user == user
    assert identity.claims["sub"] == user


@pytest.mark.parametrize(
    "given",
    [
        {"sub": ...},
        {"sub": ..., "userid": "ann"},
        {"sub": ..., "userId": ""},
        {"sub": ..., "userId": None},
        {"sub": ..., "userId": True},
        {"sub": ..., "userId": 1.5},
        {"sub": ..., "userId": ["ann"]},
        {"sub": ..., "userId": "a\0b"},
        {"sub": ..., "userId": "a" * 256},
        {"sub": 17, "userId": "ann"},
        {"sub": "", "userId": "ann"},
        {"sub": None, "userId": "ann"},
    ],
    ids=str,
)
def test_a_token_without_a_user_is_refused(given: dict[str, Any]) -> None:
    refused(token(**given), authority_for(settings()))


def test_a_setting_names_the_claims_of_the_user() -> None:
    given = token(sub="ann", email="ann@example.org", userId="1")

    for names, user in (("email", "ann@example.org"), ("uid, userId sub", "1"), ("sub", "ann")):
        identity = identify(given, jwt_user_claim=names)
        assert identity.user == user
        assert identity.claims["sub"] == user  # whose rights an access function decides
        assert identity.claims["userId"] == "1"
    refused(given, authority_for(settings(jwt_user_claim="uid")))
    # The claim sub of another issuer need not be a text.
    assert identify(token(sub=5, email="e"), jwt_user_claim="email").user == "e"


async def test_a_revocation_means_the_user_whatever_claim_names_it() -> None:
    revocations = Revocations()
    revocations._add("ann", datetime.now(UTC))
    authority = authority_for(settings(), revocations=revocations)

    before = token(sub=..., userId="ann", iat=int(time.time()) - 5)
    with pytest.raises(TokenRefused):
        await authority.identify(before)
    after = token(sub=..., userId="ann", iat=int(time.time()) + 5)
    assert (await authority.identify(after)).user == "ann"


def test_tokens_of_two_secrets_are_accepted_while_one_is_replaced() -> None:
    both = authority_for(settings(jwt_secret=OTHER_SECRET, jwt_previous_secret=SECRET))
    for secret in (SECRET, OTHER_SECRET):
        assert asyncio.run(both.identify(token(secret))).user == "ann"
    refused(token("x" * 32), both)
    refused(token(SECRET, exp=1), both)
    refused(token(SECRET), authority_for(settings(jwt_secret=OTHER_SECRET)))
    for given in (
        {"jwt_previous_secret": "short"},
        {"jwt_secret": None, "jwt_previous_secret": OTHER_SECRET},
    ):
        with pytest.raises(UsageError, match="BRAIN_JWT_PREVIOUS_SECRET"):
            authority_for(settings(**given))


def test_a_refused_token_is_logged_with_the_reason_and_without_itself(
    caplog: pytest.LogCaptureFixture,
) -> None:
    authority = authority_for(settings(jwt_audience="a", jwt_issuer="i"))
    own: dict[str, Any] = {"aud": "a", "iss": "i"}
    reasons = {
        token(**own, exp=1): "has expired",
        token(**own, nbf=time.time() + 60): "compare the clocks",
        token(**{**own, "aud": "b"}): "BRAIN_JWT_AUDIENCE",
        token(**{**own, "iss": "b"}): "BRAIN_JWT_ISSUER",
        token(SECRET * 2, "HS512", **own): "BRAIN_JWT_ALGORITHMS",
        token(**own, key=OTHER_SECRET): "BRAIN_JWT_SECRET",
        token(**own, sub=...): "BRAIN_JWT_USER_CLAIM",
        "a\x1b[2J\nb": "malformed",
        "x" * (MOST_TOKEN_BYTES + 1): "bytes",
    }
    for given, reason in reasons.items():
        caplog.clear()
        for _ in range(3):
            refused(given, authority)
        (line,) = (one.getMessage() for one in caplog.records)
        assert line.startswith("Token refused: ") and reason in line and line.isprintable()
        assert not any(part and part in line for part in given.split("."))


def test_a_claim_that_no_database_can_hold_counts_as_missing() -> None:
    odd: dict[str, Any] = {
        "zero": "a\0b",
        "half": ["\ud800"],
        "large": {"n": 10**30},
        "name\0": 1,
        "deep": json.loads("[" * 400 + "]" * 400),
    }
    fine: dict[str, Any] = {"text": "\\u0000", "list": [1, None, {"a": "ä"}], "sub": "ann"}
    found = identify(token(**odd, **fine)).claims
    assert {name: found[name] for name in fine} == fine
    assert not set(odd) & set(found)


def test_where_no_token_is_needed_none_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    refused("no token!", authority_for(settings(jwt_secret=None)))
    assert not caplog.records


def test_there_are_enough_bad_tokens() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("algorithm", ["HS256", "HS384", "HS512", "none"])
def test_a_public_key_is_not_accepted_as_a_secret(algorithm: str, tmp_path: Path) -> None:
    """Refuse a token that is signed with the public key as an HMAC secret."""
    path = tmp_path / "key.pem"
    path.write_bytes(RSA_PUBLIC)
    header = base64url(json.dumps({"alg": algorithm, "typ": "JWT"}).encode())
    signed = f"{header}.{base64url(json.dumps(claims()).encode())}"
    signature = hmac.new(RSA_PUBLIC, signed.encode(), hashlib.sha256).digest()
    authority = authority_for(settings(jwt_secret=None, jwt_key_file=path))

    refused(f"{signed}.{base64url(signature)}", authority)
    refused(token(OTHER_RSA_KEY, "RS256"), authority)
    assert asyncio.run(authority.identify(token(RSA_KEY, "RS256"))).user == "ann"


@pytest.mark.parametrize(
    "given",
    [
        {"aud": ...},
        {"aud": "others"},
        {"aud": ["brain", "others"]},
        {"aud": ["brain"]},
        {"aud": 7},
        {"iss": ...},
        {"iss": "another"},
        {"iss": ["https://issuer"]},
    ],
)
def test_a_token_with_another_audience_or_issuer_is_refused(given: dict[str, Any]) -> None:
    authority = authority_for(settings(jwt_audience="brain", jwt_issuer="https://issuer"))
    good: Any = {"aud": "brain", "iss": "https://issuer"}
    assert asyncio.run(authority.identify(token(**good))).user == "ann"

    refused(by_hand(HEADER, claims(**{**good, **given})), authority)


def test_clocks_may_differ_a_little() -> None:
    assert identify(token(exp=int(time.time()) - 5)).user == "ann"
    with pytest.raises(TokenRefused):
        identify(token(exp=int(time.time()) - 5), jwt_leeway_seconds=1)


def test_a_word_is_a_token_where_development_tokens_are_on() -> None:
    assert identify("test-123", development_tokens=True, host="::").user == "user_test-123"
    for given in ("", "a b", "a" * 65, token(OTHER_SECRET)):
        with pytest.raises(TokenRefused):
            identify(given, development_tokens=True)


@pytest.mark.parametrize(
    ("host", "is_token"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("brain.example.org", False),
    ],
)
def test_by_default_a_word_is_a_token_only_on_loopback_and_without_keys(
    host: str, is_token: bool
) -> None:
    with pytest.raises(TokenRefused):
        identify("test-123", host=host)
    with pytest.raises(TokenRefused):
        identify("test-123", jwt_secret=None, host=host, development_tokens=False)
    if is_token:
        assert identify("test-123", jwt_secret=None, host=host).user == "user_test-123"
    else:
        with pytest.raises(TokenRefused):
            identify("test-123", jwt_secret=None, host=host)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"jwt_secret": "short"}, "at least 32 bytes"),
        ({"jwt_key_file": "key.pem"}, "set one of"),
        ({"jwt_algorithms": "HS256 RS256"}, "with a secret"),
        ({"jwt_algorithms": "none"}, "with a secret"),
        ({"jwt_secret": None, "jwt_key_file": "nowhere.pem"}, "cannot read the key"),
        ({"jwt_secret": None, "jwks_url": "http://example.org/keys"}, "https://"),
        ({"jwt_secret": None, "jwks_url": "http://127.0.0.1.example.org/keys"}, "https://"),
        ({"jwt_secret": None, "jwks_url": "http://127.0.0.1@example.org/keys"}, "https://"),
        ({"jwt_secret": None, "jwks_url": "http://[::1/keys"}, "https://"),
        ({"jwt_secret": None, "jwks_url": "https:///keys"}, "https://"),
        ({"jwt_secret": None, "jwks_url": "file:///keys"}, "https://"),
    ],
)
def test_contradictory_settings_are_refused_with_a_reason(
    given: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        authority_for(settings(**given))


def test_a_private_key_is_not_taken_for_the_public_one(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(RSA_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with pytest.raises(UsageError, match="holds a private key"):
        authority_for(settings(jwt_secret=None, jwt_key_file=path))


@pytest.mark.parametrize("length", [0, 15, len(RSA_PUBLIC) // 2, len(RSA_PUBLIC) - 20])
def test_a_part_of_a_public_key_is_refused(tmp_path: Path, length: int) -> None:
    """It may be read while it is written."""
    path = tmp_path / "key.pem"
    path.write_bytes(RSA_PUBLIC[:length])
    with pytest.raises(UsageError, match="holds no public key in PEM, or not all of it"):
        authority_for(settings(jwt_secret=None, jwt_key_file=path))


def test_the_same_public_key_with_other_line_breaks_is_no_other_key(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(RSA_PUBLIC)
    authority = authority_for(given := settings(jwt_secret=None, jwt_key_file=path))
    path.write_bytes(b"# of ann\r\n" + RSA_PUBLIC.strip().replace(b"\n", b"\r\n") + b"\n\n\n")

    assert not authority.replace_keys(keys_of(given), given)


def test_the_secret_is_not_shown() -> None:
    assert SECRET not in repr(settings())


class KeySet:
    """A key server that counts its requests, and answers while `may_answer` is set."""

    def __init__(self) -> None:
        self.requests = 0
        self.keys: dict[str, Any] = {"first": RSA_KEY}
        self.status_code = 200
        self.may_answer = threading.Event()
        self.may_answer.set()

    def document(self) -> bytes:
        self.requests += 1
        assert self.may_answer.wait(60)
        keys = []
        for key_id, key in self.keys.items():
            described = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
            keys.append({**described, "kid": key_id, "use": "sig"})
        return json.dumps({"keys": keys}).encode()

    async def requested(self, times: int) -> None:
        async with asyncio.timeout(20):
            while self.requests < times:
                await asyncio.sleep(0.01)


@contextmanager
def served_keys() -> Iterator[tuple[KeySet, str]]:
    keys = KeySet()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            document = keys.document()
            self.send_response(keys.status_code)
            self.send_header("content-type", "application/json")
            self.end_headers()
            self.wfile.write(document)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield keys, f"http://127.0.0.1:{server.server_port}/keys"
        finally:
            keys.may_answer.set()
            server.shutdown()
            thread.join()


@pytest.fixture
def fetched_at_every_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("REFRESH_SECONDS", "BETWEEN_FETCHES_SECONDS", "AFTER_FAILURE_SECONDS"):
        monkeypatch.setattr(f"brain.auth.keys.{name}", 0.0)


FIRST = {"kid": "first"}


async def test_refused_tokens_are_counted_by_why() -> None:
    authority = authority_for(settings())
    refused = authority.statistics().refused
    assert set(refused.values()) == {0}
    for wrong in ("no token", token(exp=1), "x" * 10_000):
        with pytest.raises(TokenRefused):
            await authority.identify(wrong)
    assert {kind: count for kind, count in refused.items() if count} == {
        "malformed": 1,
        "expired": 1,
        "too_long": 1,
    }


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_how_old_fetched_keys_are_is_known_and_how_often_fetching_them_failed() -> None:
    with served_keys() as (_, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        assert authority.statistics().key_set == (0.0, 0)
        await authority.identify(token(RSA_KEY, "RS256", FIRST))
        age, failed = authority.statistics().key_set
        assert age > 0 and failed == 0
    with pytest.raises(TokenRefused):
        await authority.identify(token(RSA_KEY, "RS256", {"kid": "unknown"}))
    assert authority.statistics().key_set.failed_fetches == 1


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_a_token_with_a_known_key_waits_for_no_fetch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with served_keys() as (keys, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        good = token(RSA_KEY, "RS256", FIRST)
        assert (await authority.identify(good)).user == "ann"

        keys.may_answer.clear()
        assert (await authority.identify(good)).user == "ann"
        await keys.requested(2)
        keys.keys["second"] = OTHER_RSA_KEY
        other = asyncio.create_task(
            authority.identify(token(OTHER_RSA_KEY, "RS256", {"kid": "second"}))
        )
        assert (await authority.identify(good)).user == "ann"
        assert not other.done()
        monkeypatch.setattr("brain.auth.keys.REFRESH_SECONDS", 1000.0)
        keys.may_answer.set()
        assert (await other).user == "ann"
        assert keys.requests == 2


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_a_slow_key_server_delays_only_tokens_with_unknown_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.auth.keys.STALE_SECONDS", 0.0)
    monkeypatch.setattr("brain.auth.keys.FETCH_SECONDS", 1000.0)
    with served_keys() as (keys, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        good = token(RSA_KEY, "RS256", FIRST)
        await authority.identify(good)

        keys.keys["second"] = OTHER_RSA_KEY
        keys.may_answer.clear()
        unknown = [
            asyncio.create_task(
                authority.identify(token(OTHER_RSA_KEY, "RS256", {"kid": "second"}))
            )
            for _ in range(20)
        ]
        async with asyncio.timeout(20):
            for _ in range(3):
                assert (await authority.identify(good)).user == "ann"
            # Names are looked up in threads, too.
            await asyncio.gather(*(asyncio.to_thread(int) for _ in range(50)))
        assert not any(one.done() for one in unknown)
        monkeypatch.setattr("brain.auth.keys.REFRESH_SECONDS", 1000.0)
        keys.may_answer.set()
        assert {one.user for one in await asyncio.gather(*unknown)} == {"ann"}


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_keys_that_cannot_be_fetched_again_stay_valid_and_the_failure_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("brain.auth.keys.STALE_SECONDS", 0.0)
    with served_keys() as (keys, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        good = token(RSA_KEY, "RS256", FIRST)
        assert (await authority.identify(good)).user == "ann"
        assert caplog.messages == []

        monkeypatch.setattr("brain.auth.keys.AFTER_FAILURE_SECONDS", 1000.0)
        keys.status_code = 500
        for _ in range(3):
            assert (await authority.identify(good)).user == "ann"
        assert keys.requests == 2
        (message,) = caplog.messages
        assert "cannot fetch the keys at BRAIN_JWKS_URL" in message
        assert "500" in message


@pytest.mark.parametrize(
    "document", [b"no JSON", b"[]", b"{}", b'{"keys": 7}', b"\xff", b"[" * 200_000]
)
async def test_an_answer_that_is_no_key_set_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, document: bytes
) -> None:
    with served_keys() as (keys, url):
        monkeypatch.setattr(keys, "document", lambda: document)
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        with pytest.raises(TokenRefused):
            await authority.identify(token(RSA_KEY, "RS256", FIRST))
        assert "cannot fetch the keys at BRAIN_JWKS_URL" in caplog.text


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_a_token_whose_key_was_withdrawn_long_ago_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("brain.auth.keys.STALE_SECONDS", 0.0)
    with served_keys() as (keys, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        good = token(RSA_KEY, "RS256", FIRST)
        assert (await authority.identify(good)).user == "ann"

        keys.keys = {"second": OTHER_RSA_KEY}
        with pytest.raises(TokenRefused):
            await authority.identify(good)


@pytest.mark.usefixtures("fetched_at_every_chance")
@pytest.mark.parametrize("members", [[], [7], [{"kty": "RSA", "kid": "first", "n": 5, "e": []}]])
async def test_a_key_set_without_a_usable_key_withdraws_all_keys(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, members: list[object]
) -> None:
    monkeypatch.setattr("brain.auth.keys.STALE_SECONDS", 0.0)
    monkeypatch.setattr("brain.auth.keys.STALE_WAIT_SECONDS", 10.0)
    with served_keys() as (keys, url):
        authority = authority_for(settings(jwt_secret=None, jwks_url=url))
        good = token(RSA_KEY, "RS256", FIRST)
        assert (await authority.identify(good)).user == "ann"

        document = json.dumps({"keys": members}).encode()
        monkeypatch.setattr(keys, "document", lambda: document)
        with pytest.raises(TokenRefused):
            await authority.identify(good)
        assert "the key set at BRAIN_JWKS_URL has no usable key" in caplog.text


@contextmanager
def endless_server(head: bytes, piece: bytes, pause_seconds: float) -> Iterator[str]:
    """Run a server that sends `head`, and then `piece` again and again."""
    is_over = threading.Event()

    def serve() -> None:
        with suppress(OSError), listening.accept()[0] as accepted:
            accepted.sendall(head)
            while not is_over.wait(pause_seconds):
                accepted.sendall(piece)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(20)
        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/keys"
        finally:
            is_over.set()
            thread.join()


HEAD = b"HTTP/1.1 200 OK\r\n\r\n"


@pytest.mark.parametrize(
    ("head", "piece", "pause_seconds", "reason"),
    [
        (HEAD, b" ", 0.05, "did not come within 0.5 s"),
        (HEAD, b" " * 100_000, 0.0, "more than 1048576 bytes"),
    ],
)
def test_an_answer_without_an_end_is_given_up(
    head: bytes, piece: bytes, pause_seconds: float, reason: str
) -> None:
    with (
        endless_server(head, piece, pause_seconds) as url,
        pytest.raises((OSError, ValueError), match=reason),
    ):
        fetch_key_set(url, 0.5)


@pytest.mark.usefixtures("fetched_at_every_chance")
async def test_a_key_server_that_has_recovered_is_asked_while_a_former_request_has_no_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = token(RSA_KEY, "RS256", FIRST)
    with served_keys() as (_, url), endless_server(HEAD[:-2], b"X: y\r\n", 0.2) as endless:
        keys = JwksKeys(endless, ["RS256"])
        monkeypatch.setattr("brain.auth.keys.FETCH_SECONDS", 0.3)
        with pytest.raises(UnknownKey):
            await keys.candidates(good)
        monkeypatch.setattr("brain.auth.keys.FETCH_SECONDS", 20.0)
        monkeypatch.setattr(keys, "_url", url)
        assert len(await keys.candidates(good)) == 1


async def test_a_thread_that_fetches_keys_does_not_keep_the_process_from_ending() -> None:
    may_end = threading.Event()
    thread, future = in_thread(may_end.wait)
    assert thread.daemon
    may_end.set()
    assert await future


def test_keys_are_fetched_again_for_a_new_key_id_but_not_for_every_invented_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario(keys: KeySet, authority: Authority) -> None:
        good = token(RSA_KEY, "RS256", {"kid": "first"})
        identities = await asyncio.gather(*(authority.identify(good) for _ in range(20)))
        assert {identity.user for identity in identities} == {"ann"}
        assert keys.requests == 1

        invented = [token(RSA_KEY, "RS256", {"kid": f"invented {n}"}) for n in range(20)]
        for bad in (
            *invented,
            token(RSA_KEY, "RS256"),
            token(OTHER_RSA_KEY, "RS256", {"kid": "first"}),
        ):
            with pytest.raises(TokenRefused):
                await authority.identify(bad)
        assert keys.requests == 1

        keys.keys["second"] = OTHER_RSA_KEY
        monkeypatch.setattr("brain.auth.keys.BETWEEN_FETCHES_SECONDS", 0.0)
        assert (await authority.identify(token(OTHER_RSA_KEY, "RS256", {"kid": "second"}))).user
        assert keys.requests == 2

    with served_keys() as (keys, url):
        asyncio.run(scenario(keys, authority_for(settings(jwt_secret=None, jwks_url=url))))


def test_without_fetched_keys_every_token_is_refused() -> None:
    with served_keys() as (_, url):
        pass
    authority = authority_for(settings(jwt_secret=None, jwks_url=url))
    refused(token(RSA_KEY, "RS256", {"kid": "first"}), authority)


def test_a_channel_is_readable_exactly_if_a_pattern_matches_it() -> None:
    """10,000 random claims and channels, against the documented rules."""
    chance = Random(5221)
    letters = "ab.:*?[]!"
    allowed = 0
    for _ in range(10_000):
        patterns = tuple(
            "".join(chance.choices(letters, k=chance.randrange(4)))
            for _ in range(chance.randrange(3))
        )
        channel = "".join(chance.choices("ab.:[]!", k=chance.randrange(4)))
        identity = Identity("ann", 0, readable=patterns, publishable=())
        expected = any(is_matched(pattern, channel) for pattern in patterns)
        assert identity.may_read(channel) == expected, (patterns, channel)
        allowed += expected
    assert 500 < allowed < 9_500


def is_matched(pattern: str, channel: str) -> bool:
    """`*` matches any text and `?` one character; every other character matches itself."""
    if not pattern:
        return not channel
    if pattern[0] == "*":
        return any(is_matched(pattern[1:], channel[n:]) for n in range(len(channel) + 1))
    return (
        bool(channel) and pattern[0] in ("?", channel[0]) and is_matched(pattern[1:], channel[1:])
    )


def naive_match(channel: str, pattern: str) -> bool:
    """Return True if a pattern matches a channel, compared character by character."""
    if not pattern:
        return not channel
    if pattern[0] == "*":
        return any(naive_match(channel[start:], pattern[1:]) for start in range(len(channel) + 1))
    return (
        bool(channel) and pattern[0] in ("?", channel[0]) and naive_match(channel[1:], pattern[1:])
    )


def test_no_subscription_goes_beyond_the_claims() -> None:
    random = Random(5221)
    allowed = 0

    def word(letters: str) -> str:
        return "".join(random.choices(letters, k=random.randint(1, 6)))

    for _ in range(10_000):
        patterns = [word("ab:*?[]!-") for _ in range(random.randint(0, 3))]
        name = random.choice([word("ab:[]!-"), "brain.a", random.choice(patterns or ["a"])])
        identity = Identity("ann", 0.0, readable=tuple(patterns), publishable=tuple(patterns))

        def is_allowed(channel: str, patterns: list[str] = patterns) -> bool:
            is_own = channel.startswith("brain.")
            return not is_own and any(naive_match(channel, pattern) for pattern in patterns)

        assert identity.may_read(name) == identity.may_publish(name) == is_allowed(name)
        for topic in requested_topics(name, (), Decided(identity.may_read)):
            allowed += 1
            whole = topic.channel if topic.key is None else f"{topic.channel}:{topic.key}"
            # A client that may read a channel may read each of its rows.
            assert is_allowed(whole) or (topic.key is not None and is_allowed(topic.channel))
    assert allowed > 1000
