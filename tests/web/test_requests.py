"""Authorization of HTTP requests, without a database."""

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

from brain.auth.policy import authority_for
from brain.problems import Problems
from brain.settings import Settings
from brain.web.error_responses import exception_handlers
from brain.web.requests import readable_by

SECRET = "0123456789abcdef0123456789abcdef"


def web(**settings: Any) -> TestClient:
    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("the rows")

    authority = authority_for(Settings.model_validate(settings))
    route = Route("/{channel}", readable_by(authority, "channel", endpoint))
    return TestClient(Starlette(routes=[route], exception_handlers=exception_handlers(Problems())))


def bearer(**claims: Any) -> dict[str, str]:
    token = jwt.encode({"sub": "ann", "exp": time.time() + 60, **claims}, SECRET, "HS256")
    return {"authorization": f"Bearer {token}"}


def test_without_a_secret_every_request_is_allowed() -> None:
    assert web().get("/tasks").status_code == 200
    assert web().get("/tasks?token=abc123").status_code == 200


def test_with_a_secret_an_anonymous_request_is_answered_with_401() -> None:
    response = web(jwt_secret=SECRET).get("/tasks")
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert web(jwt_secret=SECRET, public_channels="tasks").get("/tasks").status_code == 200


@pytest.mark.parametrize("given", ["abc123", "a.b.c", ""])
def test_a_bad_token_is_answered_with_401_and_not_echoed(given: str) -> None:
    response = web(jwt_secret=SECRET).get("/tasks", headers={"authorization": f"Bearer {given}"})
    assert response.status_code == 401
    assert response.json() == {"error": "the token is not valid"}
    assert "BRAIN_JWT_SECRET" in response.headers["www-authenticate"]


def test_a_token_allows_its_channels() -> None:
    client = web(jwt_secret=SECRET)
    assert client.get("/tasks", headers=bearer()).text == "the rows"
    assert client.get("/tasks", headers=bearer(channels=["tasks"])).status_code == 200
    assert client.get("/tasks", headers=bearer(channels=["others"])).status_code == 403
    token = bearer()["authorization"].removeprefix("Bearer ")
    assert client.get(f"/tasks?token={token}").status_code == 200
