"""Answers are counted by their status, whoever gives them."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient

from brain.app import MAX_BODY_BYTES, build_app
from brain.settings import Settings
from brain.web.counting import CountingApplication
from tests.transport.served import NO_DATABASE


def test_answers_are_counted_also_those_to_a_large_body_and_after_an_unexpected_error() -> None:
    async def fail(request: Request) -> Response:
        raise LookupError("a bug")

    async def read(request: Request) -> Response:
        return Response(await request.body())

    app = build_app(NO_DATABASE, Settings())
    app.router.routes[:0] = [Route("/fails", fail), Route("/reads", read, methods=["POST"])]
    client = TestClient(app, "http://localhost", raise_server_exceptions=False)
    assert client.get("/fails").status_code == 500
    assert client.post("/reads", content=b"x" * (MAX_BODY_BYTES + 1)).status_code == 413
    assert client.get("/healthz").status_code == 200
    assert client.get("/fails", headers={"host": "elsewhere.example"}).status_code == 403
    assert isinstance(app, CountingApplication)
    assert app.counts.responses == {500: 1, 413: 1, 200: 1, 403: 1}
    assert app.counts.handshakes[403, "host"] == 1
