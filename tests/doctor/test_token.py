from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from brain.doctor import token, websocket
from brain.doctor.finding import Finding
from brain.settings import Settings
from tests.doctor.answering import answering, response
from tests.doctor.examining import found
from tests.end_to_end.brain import RunningBrain

SECRET = "0123456789abcdef0123456789abcdef"
OTHER = "fedcba9876543210fedcba9876543210"
# Some tokens are signed when the tests are collected: longer than all of them take.
LASTS_SECONDS = 86_400


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {"BRAIN_JWT_SECRET": SECRET, "BRAIN_PUBLIC_CHANNELS": "news fence"}


def settings_with(**members: Any) -> Settings:
    return Settings(**{"jwt_secret": SecretStr(SECRET), **members})


def signed(secret: str = SECRET, **claims: Any) -> str:
    now = time.time()
    return jwt.encode({"sub": "ann", "iat": now - 5, "exp": now + LASTS_SECONDS, **claims}, secret)


async def of(check: Any, given: str | None, **settings: Any) -> Finding:
    return await found(check, settings=settings_with(**settings), token=given)


async def test_a_token_that_is_well_passes_every_check() -> None:
    for check in (token.form, token.times, token.keys, token.verified):
        assert (await of(check, signed())).verdict == "ok"


async def test_a_token_that_is_missing_where_one_is_needed_is_a_warning() -> None:
    finding = await of(token.form, None, public_channels=("news",))

    assert finding.verdict == "warning"
    assert "reads news" in finding.text


async def test_without_a_token_where_none_is_needed_it_says_what_to_pass() -> None:
    finding = await found(token.form)

    assert finding.verdict == "not checked"
    assert "--token-file" in str(finding.way_out)


async def test_a_token_that_is_cut_off_is_named_and_not_shown() -> None:
    finding = await of(token.form, signed()[:40])

    assert finding.verdict == "failure"
    assert signed()[:20] not in f"{finding}"


async def test_a_word_is_a_token_for_development_where_no_key_is_set() -> None:
    assert (await found(token.form, token="test-123")).verdict == "ok"
    assert (await of(token.form, "test-123")).verdict == "failure"


TIMES: list[tuple[dict[str, float], str, str]] = [
    ({"exp": -100}, "failure", "has expired"),
    ({"exp": 30}, "warning", "expires in"),
    ({"nbf": 500}, "failure", "its nbf is in"),
    ({"iat": 500}, "failure", "its iat is in"),
    ({"exp": -5}, "warning", "expires in"),  # within the leeway
]


@pytest.mark.parametrize(("offsets", "verdict", "text"), TIMES)
async def test_a_token_of_another_time_is_named(
    offsets: dict[str, float], verdict: str, text: str
) -> None:
    claims: dict[str, Any] = {name: time.time() + offset for name, offset in offsets.items()}
    given = signed(**claims)
    finding = await of(token.times, given)

    assert finding.verdict == verdict
    assert text in finding.text


async def test_a_token_without_an_end_is_refused() -> None:
    finding = await of(token.times, jwt.encode({"sub": "ann"}, SECRET))

    assert finding.verdict == "failure"
    assert "exp" in finding.text


async def test_an_expired_token_of_the_right_key_fails_for_its_time_alone() -> None:
    finding = await of(token.verified, signed(exp=time.time() - 100))

    assert finding.verdict == "ok"
    assert "see token.times" in finding.text


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    (signed(OTHER), {}, "signed with another key", "BRAIN_JWT_PREVIOUS_SECRET"),
    (signed(aud="shop"), {"jwt_audience": "brain"}, "audience", "BRAIN_JWT_AUDIENCE"),
    (signed(iss="shop"), {"jwt_issuer": "brain"}, "issuer", "BRAIN_JWT_ISSUER"),
    (signed(), {"jwt_algorithms": ("HS512",)}, "algorithm", "BRAIN_JWT_ALGORITHMS"),
    (signed(), {"jwt_user_claim": ("email",)}, "BRAIN_JWT_USER_CLAIM", "BRAIN_JWT_USER_CLAIM"),
]


@pytest.mark.parametrize(("given", "settings", "text", "way_out"), WRONG)
async def test_a_token_that_the_settings_refuse_is_named_with_the_setting(
    given: str, settings: dict[str, Any], text: str, way_out: str
) -> None:
    finding = await of(token.verified, given, **settings)

    assert finding.verdict == "failure"
    assert text in finding.text
    assert way_out in str(finding.way_out)


async def test_a_token_of_a_secret_that_is_being_replaced_is_accepted() -> None:
    finding = await of(token.verified, signed(OTHER), jwt_previous_secret=SecretStr(OTHER))

    assert finding.verdict == "ok"


async def test_without_a_key_here_a_token_is_not_verified() -> None:
    finding = await found(token.verified, token=signed())

    assert finding.verdict == "not checked"
    assert "BRAIN_JWKS_URL" in str(finding.way_out)


@pytest.fixture(scope="module")
def key() -> Iterator[rsa.RSAPrivateKey]:
    yield rsa.generate_private_key(public_exponent=65537, key_size=2048)


def key_set(key: rsa.RSAPrivateKey, key_id: str) -> str:
    found = json.loads(jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key()))
    return json.dumps({"keys": [{**found, "kid": key_id, "use": "sig"}]})


def signed_by(key: rsa.RSAPrivateKey, key_id: str) -> str:
    claims = {"sub": "ann", "exp": time.time() + 600}
    return jwt.encode(claims, key, "RS256", headers={"kid": key_id})


async def test_a_key_that_a_key_set_has_no_more_is_named(key: rsa.RSAPrivateKey) -> None:
    async with answering(response(200, key_set(key, "new"))) as port:
        settings = Settings(jwks_url=f"http://127.0.0.1:{port}/keys")
        keys = await found(token.keys, settings=settings)
        new = await found(token.verified, settings=settings, token=signed_by(key, "new"))
        old = await found(token.verified, settings=settings, token=signed_by(key, "old"))

    assert (keys.verdict, keys.facts["count"], new.verdict) == ("ok", 1, "ok")
    assert old.verdict == "failure"
    assert "withdrawn" in str(old.way_out)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (response(404), "cannot be fetched"),
        (response(200, "<html>"), "cannot be fetched"),
        (response(200, '{"keys":[]}'), "no usable key"),
    ],
)
async def test_a_key_set_that_is_none_is_named(answer: bytes, text: str) -> None:
    async with answering(answer) as port:
        settings = Settings(jwks_url=f"http://127.0.0.1:{port}/keys")
        finding = await found(token.keys, settings=settings)

    assert finding.verdict == "failure"
    assert text in finding.text
    assert "BRAIN_JWKS_URL" in f"{finding.text} {finding.way_out}"


async def test_a_key_file_without_a_public_key_is_named(
    tmp_path: Path, key: rsa.RSAPrivateKey
) -> None:
    file = tmp_path / "key.pem"
    file.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    right = await found(token.keys, settings=Settings(jwt_key_file=file))
    other = await found(token.keys, settings=Settings(jwt_key_file=file, jwt_algorithms=("ES256",)))
    file.write_text("-----BEGIN CERTIFICATE-----\nnone\n-----END CERTIFICATE-----\n")
    wrong = await found(token.keys, settings=Settings(jwt_key_file=file))
    missing = await found(token.keys, settings=Settings(jwt_key_file=tmp_path / "none"))

    assert right.verdict == "ok"
    assert (other.verdict, wrong.verdict, missing.verdict) == ("failure",) * 3
    assert "openssl pkey -pubout" in str(other.way_out)
    assert "openssl pkey -pubout" in wrong.text


async def test_a_token_that_was_revoked_is_named(
    core_connection: asyncpg.Connection, core_database: str
) -> None:
    async def revoked() -> Finding:
        return await found(
            token.revoked,
            token.verified,
            settings=settings_with(),
            token=signed(iat=time.time() - 100),
            database_url=core_database,
        )

    before = await revoked()
    await core_connection.execute("SELECT brain.revoke('ann')")
    after = await revoked()

    assert before.verdict == "ok"
    assert after.verdict == "failure"
    assert "log in anew" in str(after.way_out)


async def test_whether_a_running_brain_accepts_a_token_is_known(
    shared_brain: RunningBrain,
) -> None:
    async def accepted(given: str) -> Finding:
        return await found(token.accepted, websocket.websocket, url=shared_brain.http, token=given)

    assert (await accepted(signed())).verdict == "ok"
    for wrong in (signed(OTHER), signed(exp=time.time() - 100)):
        finding = await accepted(wrong)
        assert finding.verdict == "failure"
        assert "Token refused" in str(finding.way_out)
