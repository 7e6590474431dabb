"""Who may ask over HTTP, without a database behind it."""

from __future__ import annotations

import time
from typing import Any

import jwt
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from brain.auth import authority
from brain.settings import Settings
from brain.web.access import for_hearers

SECRET = "0123456789abcdef0123456789abcdef"


def web(**settings: Any) -> TestClient:
    async def answer(request: Request) -> Response:
        return PlainTextResponse("what was asked for")

    decides = authority(Settings.model_validate(settings))
    guarded = for_hearers(decides, lambda request: str(request.path_params["channel"]), answer)
    return TestClient(Starlette(routes=[Route("/{channel}", guarded)]))


def bearer(**claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60, **claims}, SECRET, "HS256")
    return {"authorization": f"Bearer {token}"}


def test_without_a_secret_everybody_may_ask() -> None:
    assert web().get("/tasks").status_code == 200
    assert web().get("/tasks?token=abc123").status_code == 200


def test_with_a_secret_a_stranger_is_asked_for_a_token() -> None:
    answer = web(jwt_secret=SECRET).get("/tasks")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
    assert web(jwt_secret=SECRET, public_channels="tasks").get("/tasks").status_code == 200


@pytest.mark.parametrize("given", ["abc123", "a.b.c", ""])
def test_a_bad_token_is_not_repeated(given: str) -> None:
    answer = web(jwt_secret=SECRET).get("/tasks", headers={"authorization": f"Bearer {given}"})
    assert answer.status_code == 401
    assert answer.json() == {"error": "the token is not valid"}


def test_a_token_opens_what_it_is_for() -> None:
    client = web(jwt_secret=SECRET)
    assert client.get("/tasks", headers=bearer()).text == "what was asked for"
    assert client.get("/tasks", headers=bearer(channels=["tasks"])).status_code == 200
    assert client.get("/tasks", headers=bearer(channels=["others"])).status_code == 403
    token = bearer()["authorization"].removeprefix("Bearer ")
    assert client.get(f"/tasks?token={token}").status_code == 200
