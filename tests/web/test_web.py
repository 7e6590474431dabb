"""What is asked over plain HTTP, without a server and a database behind it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from brain.database.nodes import Everywhere
from brain.listener.listener import ListenerStatistics
from brain.web import health, page, status

Web = Callable[..., TestClient]


@pytest.fixture
def web() -> Web:
    """Make a client of an application whose listener is live or not."""

    def make(*, is_live: bool = True) -> TestClient:
        listener = ListenerStatistics(is_live, is_busy=False, reconnections=0, cursor=None)

        async def clients_elsewhere() -> int:
            return 3

        routes = [
            *status.routes(lambda: 1, lambda: listener, clients_elsewhere),
            *page.routes(),
        ]
        return TestClient(Starlette(routes=routes))

    return make


def test_the_status_says_whether_the_database_is_being_followed(web: Web) -> None:
    for is_live in (True, False):
        answer = web(is_live=is_live).get("/api/brain/status/ws").json()

        assert answer == {
            "success": True,
            "websocket": {"active": is_live, "connected_clients": 4, "endpoint": "/ws"},
        }


def test_a_load_balancer_is_told_when_the_database_is_not_followed(web: Web) -> None:
    assert web(is_live=True).get("/readyz").status_code == 200
    assert web(is_live=False).get("/readyz").status_code == 503
    assert web(is_live=False).get("/healthz").status_code == 200


def test_answers_are_not_to_be_cached(web: Web) -> None:
    for path in ("/api/brain/status/ws", "/readyz", "/"):
        assert web().get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"]
)
def test_a_browser_gets_the_page_with_its_rules(web: Web, accept: str) -> None:
    answer = web().get("/", headers={"accept": accept})

    assert answer.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert answer.headers["vary"] == "Accept"
    script = web().get("/tasks.js")
    assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_everybody_else_gets_a_short_summary(web: Web, accept: str) -> None:
    answer = web().get("/", headers={"accept": accept})

    assert answer.json()["service"] == "brain"
    assert answer.headers["vary"] == "Accept"


def test_an_unknown_path_is_not_found_and_an_unknown_method_not_allowed(web: Web) -> None:
    assert web().get("/nothing").status_code == 404
    assert web().post("/api/brain/status/ws").status_code == 405


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://ann:secret@db.example.org:5433/brain?sslmode=require",
            "postgresql://db.example.org:5433/brain",
        ),
        ("postgresql://localhost/brain", "postgresql://localhost/brain"),
        (
            "postgresql:///brain?host=/run/postgresql&password=secret",
            "postgresql://localhost/brain",
        ),
        ("postgresql://ann:secret@[::1]:5432/brain", "postgresql://[::1]:5432/brain"),
        ("postgresql://ann:secret@a:1,b:2/brain", "postgresql://…/brain"),
    ],
)
@pytest.mark.parametrize("is_live", [True, False])
def test_the_health_tells_whether_the_database_is_followed_and_no_password(
    url: str, shown: str, is_live: bool
) -> None:
    async def everywhere() -> Everywhere:
        return Everywhere(5, 4, 3, {})

    routes = health.routes(url, lambda: is_live, everywhere)
    response = TestClient(Starlette(routes=routes)).get("/health")

    assert response.status_code == (200 if is_live else 503)
    answer = response.json()
    assert list(answer) == ["status", "timestamp", "gateway", "websocket", "config"]
    assert answer["status"] == ("ok" if is_live else "degraded")
    assert answer["gateway"] == ("connected" if is_live else "disconnected")
    assert answer["websocket"] == {"status": "running", "connections": 5, "connectedUsers": 3}
    assert answer["config"] == {"gatewayUrl": shown, "useMockData": False}
