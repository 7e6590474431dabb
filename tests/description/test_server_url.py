from __future__ import annotations

import pytest

from brain.description.server_url import ServerUrl, parse_server_url


@pytest.mark.parametrize(
    ("url", "server", "http", "ws"),
    [
        (
            "https://example.org/brain/",
            ServerUrl("example.org", True, "/brain"),
            "https://example.org/brain",
            "wss://example.org/brain",
        ),
        (
            "ws://[::1]:5221",
            ServerUrl("[::1]:5221"),
            "http://[::1]:5221",
            "ws://[::1]:5221",
        ),
    ],
)
def test_a_server_has_a_url_for_each_protocol(
    url: str, server: ServerUrl, http: str, ws: str
) -> None:
    assert parse_server_url(url) == server
    assert (server.url("http"), server.url("ws")) == (http, ws)


@pytest.mark.parametrize(
    "url",
    [
        "example.org",
        "ftp://example.org",
        "https://",
        "https://ann:secret@example.org",
        "https://example.org?a=1",
        "https://example.org/#a",
        "https://example.org/a//b",
        "https://example.org/{a}",
        "https://[::1",
    ],
)
def test_what_is_no_url_of_a_server_is_refused(url: str) -> None:
    with pytest.raises(ValueError):
        parse_server_url(url)
