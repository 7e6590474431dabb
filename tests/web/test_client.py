"""The client that Brain serves to pages."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from brain import __version__
from tests.description.documents import application


@pytest.fixture
def client() -> TestClient:
    return TestClient(application(), base_url="http://localhost")


@pytest.mark.parametrize(
    ("name", "export"), [("brain.js", "createBrain"), ("tabs.js", "createTabs")]
)
def test_the_client_is_javascript_modules_that_name_their_version(
    name: str, export: str, client: TestClient
) -> None:
    response = client.get(f"/client/{name}")

    assert response.headers["content-type"].partition(";")[0] == "text/javascript"
    assert response.text.startswith(f"/* brain-realtime {__version__} */\n")
    assert export in response.text


def test_a_browser_asks_whether_its_client_is_still_the_same(client: TestClient) -> None:
    first = client.get("/client/brain.js")
    etag = first.headers["etag"]
    again = client.get("/client/brain.js", headers={"if-none-match": etag})

    assert first.headers["cache-control"] == "no-cache"
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)


def test_a_page_of_the_same_host_may_import_the_client_and_a_page_of_another_may_not(
    client: TestClient,
) -> None:
    own = client.get("/client/brain.js", headers={"origin": "http://localhost"})
    foreign = client.get("/client/brain.js", headers={"origin": "http://example.com"})

    assert (own.status_code, foreign.status_code) == (200, 403)
