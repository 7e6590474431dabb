from __future__ import annotations

import socket
from pathlib import Path

import pytest

from brain.doctor import address
from brain.doctor.address import Place
from tests.doctor.answering import ALIVE, answering
from tests.doctor.certificates import server_context
from tests.doctor.examining import found

PLACES = [
    ("http://localhost:5221", Place("http", "localhost", 5221, "")),
    ("wss://brain.example.org/brain/", Place("https", "brain.example.org", 443, "/brain")),
    ("ws://[::1]:80", Place("http", "::1", 80, "")),
]


@pytest.mark.parametrize(("url", "place"), PLACES)
def test_a_url_leads_to_a_place(url: str, place: Place) -> None:
    assert Place.of(url) == place


def test_the_origin_of_a_place_has_no_default_port() -> None:
    assert Place.of("https://brain.example.org:443/brain").origin == "https://brain.example.org"
    assert Place.of("http://[::1]:5221").origin == "http://[::1]:5221"


async def test_without_a_url_it_says_what_to_pass() -> None:
    finding = await found(address.address)

    assert finding.verdict == "not checked"
    assert "--url" in str(finding.way_out)


async def test_a_port_that_accepts_connections_is_reachable() -> None:
    async with answering(ALIVE) as port:
        finding = await found(address.address, url=f"http://127.0.0.1:{port}")

    assert finding.verdict == "ok"


async def test_a_port_on_which_nothing_listens_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        finding = await found(address.address, url=f"http://127.0.0.1:{free.getsockname()[1]}")

    assert finding.verdict == "failure"
    assert "start brain serve" in str(finding.way_out)


async def test_a_name_that_does_not_resolve_is_named() -> None:
    finding = await found(address.address, url="http://no.such.invalid")

    assert finding.verdict == "failure"
    assert "does not resolve" in finding.text


async def test_after_an_address_that_is_not_reached_the_rest_of_the_way_is_not_checked() -> None:
    finding = await found(address.tls, address.address, url="https://127.0.0.1:1")

    assert finding.verdict == "not checked"
    assert finding.way_out == "see connection.address"


async def test_a_token_without_tls_over_a_network_is_a_warning() -> None:
    finding = await found(address.tls, url="http://brain.example.org", token="t")

    assert finding.verdict == "warning"
    assert "https://" in str(finding.way_out)


TLS = [
    ("localhost", 60.0, "ok", "valid for 60 days"),
    ("localhost", 3.0, "warning", "renew the certificate"),
    ("localhost", -0.5, "failure", "expired at"),
    ("another.example.org", 60.0, "failure", "it names another.example.org"),
]


@pytest.mark.parametrize(("name", "days", "verdict", "text"), TLS)
async def test_a_certificate_that_clients_refuse_is_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    days: float,
    verdict: str,
    text: str,
) -> None:
    context = server_context(tmp_path, name=name, ends=days)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with answering(ALIVE, tls=context) as port:
        finding = await found(address.tls, url=f"https://localhost:{port}")

    assert finding.verdict == verdict
    assert text in f"{finding.text} {finding.way_out}"


async def test_a_certificate_of_the_future_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = server_context(tmp_path, begins=1.0)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    async with answering(ALIVE, tls=context) as port:
        finding = await found(address.tls, url=f"https://localhost:{port}")

    assert finding.verdict == "failure"
    assert "clock" in str(finding.way_out)


async def test_a_certificate_of_an_unknown_authority_is_named(tmp_path: Path) -> None:
    async with answering(ALIVE, tls=server_context(tmp_path)) as port:
        finding = await found(address.tls, url=f"https://localhost:{port}")

    assert finding.verdict == "failure"
    assert "SSL_CERT_FILE" in str(finding.way_out)


async def test_https_where_no_tls_is_spoken_is_named() -> None:
    async with answering(ALIVE) as port:
        finding = await found(address.tls, url=f"https://localhost:{port}")

    assert finding.verdict == "failure"
    assert "does not speak TLS" in finding.text
