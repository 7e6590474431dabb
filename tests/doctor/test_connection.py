from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import jwt
import pytest
from websockets.asyncio.server import ServerConnection, serve

from brain.auth.hosts import REFUSED
from brain.doctor import http, stream, token, websocket
from brain.doctor.check import Check
from brain.doctor.finding import Finding
from tests.doctor.answering import ALIVE, SILENCE, answering, response
from tests.doctor.certificates import server_context
from tests.doctor.examining import found
from tests.end_to_end.brain import RunningBrain
from tests.end_to_end.proxies import running_proxy
from tests.proxy import proxy_to

WAY = (http.http, http.host, http.ready, websocket.websocket, websocket.origin, stream.sse)


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return {"BRAIN_ALLOWED_ORIGINS": "https://app.example.org"}


async def test_every_step_of_the_way_to_a_brain_is_ok(shared_brain: RunningBrain) -> None:
    for check in WAY:
        finding = await found(check, url=shared_brain.http)
        assert finding.verdict == "ok", finding


@pytest.mark.parametrize("name", ["nginx", "haproxy", "caddy"])
async def test_every_step_through_a_proxy_with_tls_and_a_path_is_ok(
    name: str, shared_brain: RunningBrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_proxy(name, tmp_path, shared_brain.port) as proxy:
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
        for check in WAY:
            finding = await found(check, url=proxy.https)
            assert finding.verdict == "ok", finding


OTHERS = [
    (response(302, location="https://localhost/brain/healthz"), "redirects", "https://localhost/b"),
    (response(502), "does not reach Brain", "start brain serve"),
    (response(504), "does not reach Brain", "start brain serve"),
    (response(200, "<html>"), "is not Brain", "correct host, port and path"),
    (response(404), "is not Brain", "correct host, port and path"),
    (b"SSH-2.0-OpenSSH\r\n\r\n", "ends the connection without an answer", "another program"),
]


@pytest.mark.parametrize(("answer", "text", "way_out"), OTHERS)
async def test_what_is_no_brain_is_named(answer: bytes, text: str, way_out: str) -> None:
    async with answering(answer) as port:
        finding = await found(http.http, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert text in finding.text
    assert way_out in str(finding.way_out)


async def test_a_process_that_accepts_and_does_not_answer_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "ANSWER_SECONDS", 0.3)
    async with answering(SILENCE) as port:
        finding = await found(http.http, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert "does not answer" in finding.text
    assert "open files" in str(finding.way_out)


async def test_plain_http_where_tls_is_spoken_is_named(tmp_path: Path) -> None:
    async with answering(ALIVE, tls=server_context(tmp_path)) as port:
        finding = await found(http.http, url=f"http://localhost:{port}/brain")

    assert finding.verdict == "failure"
    assert f"--url https://localhost:{port}/brain" in str(finding.way_out)


async def test_a_path_below_which_brain_is_not_served_is_named(
    shared_brain: RunningBrain,
) -> None:
    finding = await found(http.http, url=f"{shared_brain.http}/brain")

    assert finding.verdict == "failure"
    assert f"--url {shared_brain.http}" in str(finding.way_out)


async def test_a_host_that_brain_does_not_go_by_is_named() -> None:
    refused = response(403, f'{{"error":"{REFUSED}"}}')
    async with answering(ALIVE, {"/api/brain/status/ws": refused}) as port:
        finding = await found(http.host, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert "BRAIN_ALLOWED_HOSTS=127.0.0.1" in str(finding.way_out)


READINESS = [
    (503, '{"status":"not following the database","problems":[]}', "failure", "not following"),
    (503, '{"status":"draining"}', "failure", "is stopping"),
    (
        200,
        '{"status":"ready","problems":[{"address":"log","text":"slow","count":3,"at":"now"}]}',
        "warning",
        "log: slow (3 times",
    ),
    (404, "<html>", "failure", "not by Brain"),
]


@pytest.mark.parametrize(("status", "body", "verdict", "text"), READINESS)
async def test_a_node_that_is_not_ready_is_named(
    status: int, body: str, verdict: str, text: str
) -> None:
    async with answering(response(status, body)) as port:
        finding = await found(http.ready, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == verdict
    assert text in finding.text


HANDSHAKES = [
    (response(400), "proxy_set_header Upgrade"),
    (response(426), "proxy_set_header Upgrade"),
    (response(401), "another token"),
    (response(429), "BRAIN_MAX_CONNECTIONS_PER_ADDRESS"),
    (response(503), "BRAIN_MAX_CONNECTIONS"),
    (response(502), "does not reach Brain"),
]


@pytest.mark.parametrize(("answer", "way_out"), HANDSHAKES)
async def test_a_websocket_that_is_refused_is_named(answer: bytes, way_out: str) -> None:
    async with answering(answer) as port:
        finding = await found(websocket.websocket, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert way_out in str(finding.way_out)


async def test_a_websocket_of_which_nothing_comes_is_named(
    shared_brain: RunningBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(websocket, "OPEN_SECONDS", 1.0)
    async with proxy_to(shared_brain.http, head_only) as (url, _):
        finding = await found(websocket.websocket, url=url)

    assert finding.verdict == "failure"
    assert "nothing comes" in finding.text


def head_only(data: bytes) -> bytes:
    """Return the head of a response alone, as a proxy that holds back what follows."""
    head, end, _ = data.partition(b"\r\n\r\n")
    return head + end if data.startswith(b"HTTP/") else b""


CLOSING: list[Callable[[ServerConnection], Awaitable[None]]] = [
    lambda connection: connection.close(),
    lambda connection: connection.send("<html>"),
    lambda connection: connection.send("[]"),
    lambda connection: connection.send('{"type":"hello"}'),
    lambda connection: connection.send('{"type":"hello","cursor":"x"}'),
]


@pytest.mark.parametrize("handler", CLOSING)
async def test_a_websocket_without_the_first_frame_of_brain_is_named(
    handler: Callable[[ServerConnection], Awaitable[None]],
) -> None:
    async with serve(handler, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finding = await found(websocket.websocket, url=url)
        origin = await found(websocket.origin, url=url)
        accepted = await found(token.accepted, websocket.websocket, url=url, token="t")

    assert finding.verdict == "failure"
    assert "first frame" in finding.text
    assert (origin.verdict, accepted.verdict) == ("not checked", "not checked")


@pytest.mark.parametrize("check", [http.host, http.ready])
async def test_a_path_that_is_not_answered_is_named(check: Check) -> None:
    async with answering(b"no HTTP\r\n\r\n") as port:
        finding = await found(check, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert "does not answer /" in finding.text


async def test_an_origin_that_is_not_allowed_is_named_with_the_setting(
    shared_brain: RunningBrain,
) -> None:
    async def of(origin: str) -> Finding:
        return await found(websocket.origin, url=shared_brain.http, origin=origin)

    refused = await of("https://other.example.org")
    assert refused.verdict == "failure"
    assert "BRAIN_ALLOWED_ORIGINS=https://other.example.org" in str(refused.way_out)
    assert (await of("https://app.example.org")).verdict == "ok"


async def test_a_proxy_that_changes_the_host_has_brains_own_pages_refused(
    shared_brain: RunningBrain,
) -> None:
    # Brain sees the Host of the client, and the page has that of Brain.
    finding = await found(
        websocket.origin, url=shared_brain.http, origin="http://localhost:1", token=None
    )
    own = websocket.of_refused_origin("http://localhost:1", is_own=True)

    assert finding.verdict == own.verdict == "failure"
    assert "proxy_set_header Host" in str(own.way_out)


async def test_a_stream_that_a_proxy_buffers_is_named(
    shared_brain: RunningBrain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "FIRST_EVENT_SECONDS", 1.0)
    async with proxy_to(shared_brain.http, head_only) as (url, _):
        finding = await found(stream.sse, url=url)

    assert finding.verdict == "failure"
    assert "proxy_buffering off" in str(finding.way_out)


STREAMS = [
    (response(200, content_type="text/event-stream", content_encoding="gzip"), "compresses"),
    (response(200, content_type="text/event-stream"), "ends before its first event"),
    (response(404, content_type="text/html"), "is answered with 404 text/html"),
]


@pytest.mark.parametrize(("answer", "text"), STREAMS)
async def test_a_stream_that_does_not_come_as_it_is_sent_is_named(answer: bytes, text: str) -> None:
    async with answering(answer) as port:
        finding = await found(stream.sse, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "failure"
    assert text in finding.text


async def test_a_limit_for_idle_connections_is_not_checked_and_says_why(
    shared_brain: RunningBrain,
) -> None:
    finding = await found(websocket.idle, url=shared_brain.http)

    assert finding.verdict == "not checked"
    assert "BRAIN_PING_SECONDS" in str(finding.way_out)


async def test_a_token_that_a_brain_without_keys_ignores_is_a_warning(
    shared_brain: RunningBrain,
) -> None:
    given = jwt.encode({"sub": "ann", "exp": 2e9}, "0123456789abcdef0123456789abcdef")
    finding = await found(token.accepted, websocket.websocket, url=shared_brain.http, token=given)

    assert finding.verdict == "warning"
    assert "needs no token" in finding.text
