"""Status, pages and health over HTTP, without a server and a database."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import cast
from uuid import uuid4

import pytest
from pydantic import SecretStr
from starlette.applications import Starlette
from starlette.testclient import TestClient

from brain.app import build_app
from brain.listener.batch_source import BatchSource, BatchSourceStatistics
from brain.presence.cluster import Cluster, ClusterCounts
from brain.presence.tracker import ClientInfo
from brain.settings import Settings
from brain.system import installed_systems
from brain.systems.mission_control import health
from brain.web import pages, status
from brain.web.services import Services

Web = Callable[..., TestClient]


class Source:
    """A batch source that is live or not."""

    def __init__(self, is_live: bool) -> None:
        self._is_live = is_live

    def statistics(self) -> BatchSourceStatistics:
        return BatchSourceStatistics(self._is_live, False, 0, None, notifications=0, read_at=0.0)


class CountedCluster:
    """A cluster with fixed numbers."""

    async def counts(self) -> ClusterCounts:
        return ClusterCounts(5, 4, 3, {})

    async def clients_elsewhere(self) -> int:
        return 3


def services_of(url: str, *, is_live: bool, settings: Settings | None = None) -> Services:
    """Return the services of an application that has one client, of four in all."""
    services: Services = build_app(url, settings or Settings()).state.services
    services.presence.add(ClientInfo(uuid4(), None, False, frozenset()))
    return replace(
        services,
        source=cast(BatchSource, Source(is_live)),
        cluster=cast(Cluster, CountedCluster()),
    )


@pytest.fixture
def web() -> Web:
    """Return a function that makes a client of an application, with a live source or not."""

    def make(*, is_live: bool = True, has_page: bool = True) -> TestClient:
        services = services_of("postgresql://localhost/brain", is_live=is_live)
        cecelia = installed_systems()["cecelia"]
        routes = [
            *status.routes(services),
            *pages.routes(cecelia.front_page if has_page else None, cecelia.links),
            *cecelia.routes(services),
        ]
        return TestClient(Starlette(routes=routes))

    return make


def test_the_status_shows_whether_the_database_is_followed(web: Web) -> None:
    for is_live in (True, False):
        body = web(is_live=is_live).get("/api/brain/status/ws").json()

        assert body == {
            "success": True,
            "websocket": {"active": is_live, "connected_clients": 4, "endpoint": "/ws"},
        }


def test_readiness_lists_the_problems_that_brain_lives_with() -> None:
    for is_live in (True, False):
        services = services_of("postgresql://localhost/brain", is_live=is_live)
        client = TestClient(Starlette(routes=status.routes(services)))
        assert "problems" not in client.get("/readyz").json()

        services.problems.report("retention", "a step failed")
        services.problems.report("retention", "another step failed")

        response = client.get("/readyz")
        assert response.status_code == (200 if is_live else 503)
        (problem,) = response.json()["problems"]
        assert datetime.fromisoformat(problem.pop("at")).tzinfo is not None
        assert problem == {
            "address": "retention",
            "text": "another step failed",
            "channel": None,
            "count": 2,
        }


@pytest.mark.parametrize("token", [None, "wrong"])
def test_readiness_shows_no_channel_no_key_and_no_text_where_clients_need_tokens(
    token: str | None,
) -> None:
    settings = Settings(jwt_secret=SecretStr("s" * 32))
    services = services_of("postgresql://localhost/brain", is_live=True, settings=settings)
    for channel, key in (("salaries", "ann@example.org"), ("salaries", "bob"), ("news", "1")):
        services.problems.report(f"message {channel}", f'["{key}"]', channel=channel)
    services.problems.report("watched columns salaries", 'invalid input: "secret"')
    services.problems.report("retention", "a step failed")
    client = TestClient(Starlette(routes=status.routes(services)))

    response = client.get("/readyz", params={} if token is None else {"token": token})

    assert response.status_code == 200
    found = [(one["address"], one["count"], set(one)) for one in response.json()["problems"]]
    keys = {"address", "count", "at"}
    assert found == [("retention", 1, keys), ("watched", 1, keys), ("message", 3, keys)]


def test_readiness_fails_while_the_database_is_not_followed(web: Web) -> None:
    assert web(is_live=True).get("/readyz").status_code == 200
    assert web(is_live=False).get("/readyz").status_code == 503
    assert web(is_live=False).get("/healthz").status_code == 200


def test_a_process_that_stops_is_not_ready_and_is_alive() -> None:
    services = services_of("postgresql://localhost/brain", is_live=True)
    client = TestClient(Starlette(routes=status.routes(services)))

    services.draining.begin()

    response = client.get("/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "draining"})
    assert client.get("/healthz").status_code == 200


def test_a_worker_that_another_one_replaces_does_not_make_brain_unready() -> None:
    services = services_of("postgresql://localhost/brain", is_live=True)
    client = TestClient(Starlette(routes=status.routes(services)))

    services.draining.begin(is_replaced=True)

    assert client.get("/readyz").status_code == 200


def test_responses_are_not_cached(web: Web) -> None:
    for path in ("/api/brain/status/ws", "/readyz", "/"):
        assert web().get(path).headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "accept", ["text/html", "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"]
)
def test_a_browser_gets_the_page_with_its_content_security_policy(web: Web, accept: str) -> None:
    response = web().get("/", headers={"accept": accept})

    assert response.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert response.headers["vary"] == "Accept"
    script = web().get("/tasks.js")
    assert script.headers["content-type"].startswith("text/javascript")


@pytest.mark.parametrize("accept", ["*/*", "application/json", ""])
def test_clients_that_are_no_browser_get_a_short_summary(web: Web, accept: str) -> None:
    response = web().get("/", headers={"accept": accept})

    assert response.json()["service"] == "brain"
    assert response.headers["vary"] == "Accept"


def test_a_browser_gets_the_summary_too_where_no_system_has_a_page(web: Web) -> None:
    response = web(has_page=False).get("/", headers={"accept": "text/html"})

    assert response.json()["service"] == "brain"
    assert response.json()["links"]["tasks"] == "/api/brain/tasks"


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
            "postgresql:///brain",
        ),
        ("postgresql://ann:secret@[::1]:5432/brain", "postgresql://[::1]:5432/brain"),
        ("postgresql://ann:secret@a:1,b:2/brain", "postgresql://a:1,b:2/brain"),
    ],
)
@pytest.mark.parametrize("is_live", [True, False])
def test_the_health_shows_whether_the_database_is_followed_and_no_password(
    url: str, shown: str, is_live: bool
) -> None:
    routes = health.routes(services_of(url, is_live=is_live))
    response = TestClient(Starlette(routes=routes)).get("/health")

    assert response.status_code == (200 if is_live else 503)
    body = response.json()
    assert list(body) == ["status", "timestamp", "gateway", "websocket", "config"]
    assert body["status"] == ("ok" if is_live else "degraded")
    assert body["gateway"] == ("connected" if is_live else "disconnected")
    assert body["websocket"] == {"status": "running", "connections": 5, "connectedUsers": 3}
    assert body["config"] == {"gatewayUrl": shown, "useMockData": False}
