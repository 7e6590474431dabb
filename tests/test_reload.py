"""Which settings take effect without a restart."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from brain.app import build_app
from brain.errors import UsageError
from brain.reload import RELOADED, LiveSettings, change_to, variables
from brain.settings import Settings

SECRET = "s" * 32


def test_what_takes_effect_is_applied_and_the_rest_stays() -> None:
    former = Settings(jwt_secret=SecretStr(SECRET), max_connections=1, ring_bytes=1)
    new = Settings(
        jwt_secret=SecretStr("t" * 32), max_connections=2, ring_bytes=2, log_level="debug"
    )
    change = change_to(new, former)

    assert sorted(change.applied) == ["jwt_secret", "log_level", "max_connections"]
    assert change.pending == ["ring_bytes"]
    assert (change.settings.max_connections, change.settings.ring_bytes) == (2, 1)
    assert change.settings.jwt_secret == new.jwt_secret
    assert variables(change.pending) == ["BRAIN_RING_BYTES"]


@pytest.mark.parametrize("former", [{}, {"jwt_secret": SECRET}])
def test_whether_tokens_are_needed_does_not_change(former: dict[str, Any]) -> None:
    new: dict[str, Any] = {"jwt_secret": SECRET} if not former else {}
    change = change_to(Settings(**new, log_level="error"), Settings(**former))

    assert (change.applied, change.pending) == (["log_level"], ["jwt_secret"])
    assert (change.settings.jwt_secret is None) == (not former)


def test_every_name_is_that_of_a_setting() -> None:
    assert set(RELOADED) <= Settings.model_fields.keys()


class Provider:
    """A server with a JSON Web Key Set."""

    def __init__(self) -> None:
        self.keys: list[dict[str, Any]] | None = []
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(200 if provider.keys is not None else 500)
                self.end_headers()
                self.wfile.write(json.dumps({"keys": provider.keys}).encode())

            def log_message(self, format: str, *arguments: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/keys"


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    provider = Provider()
    thread = Thread(target=provider.server.serve_forever)
    thread.start()
    yield provider
    await asyncio.to_thread(provider.server.shutdown)
    provider.server.server_close()
    thread.join()


def public(key: rsa.RSAPrivateKey, id: str) -> dict[str, Any]:
    made: dict[str, Any] = jwt.algorithms.RSAAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": id, "use": "sig"}


def live_settings(settings: Settings) -> LiveSettings:
    live: LiveSettings = build_app("postgresql://127.0.0.1:1/none", settings).state.live_settings
    return live


async def test_the_keys_at_a_url_are_fetched_at_once(provider: Provider) -> None:
    first, second = (rsa.generate_private_key(65537, 2048) for _ in range(2))
    settings = Settings(jwks_url=provider.url)
    live = live_settings(settings)
    provider.keys = [public(first, "1"), public(second, "2")]
    await live.become(settings)
    before = live.authority.keys
    assert before is not None
    both = before.fingerprints()
    assert len(both) == 2

    provider.keys = [public(second, "2")]
    change = await live.become(settings)
    assert change.applied == ["jwks_url"]
    after = live.authority.keys
    assert after is not None and len(after.fingerprints()) == 1
    assert after.fingerprints() < both

    assert (await live.become(settings)).applied == []


async def test_while_a_url_does_not_answer_its_last_keys_stay_and_the_rest_changes(
    provider: Provider,
) -> None:
    key = rsa.generate_private_key(65537, 2048)
    settings = Settings(jwks_url=provider.url)
    live = live_settings(settings)
    provider.keys = [public(key, "1")]
    await live.become(settings)
    provider.keys = None
    change = await live.become(settings.model_copy(update={"max_connections": 7}))

    assert change.applied == ["max_connections"]
    assert live.limiter.quotas.in_all == 7
    keys = live.authority.keys
    assert keys is not None and len(keys.fingerprints()) == 1


async def test_another_url_that_does_not_answer_changes_nothing(provider: Provider) -> None:
    settings = Settings(jwks_url=provider.url)
    live = live_settings(settings)
    await live.become(settings)
    keys = live.authority.keys
    other = settings.model_copy(
        update={"jwks_url": "http://127.0.0.1:1/keys", "max_connections": 7}
    )
    with pytest.raises(UsageError, match="BRAIN_JWKS_URL cannot be fetched"):
        await live.become(other)

    assert live.authority.keys is keys
    assert live.settings.jwks_url == provider.url
    assert live.limiter.quotas.in_all != 7
