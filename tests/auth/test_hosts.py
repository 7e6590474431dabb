"""By which names Brain may be addressed."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from brain.auth.hosts import Hosts, hosts_of
from brain.errors import UsageError
from brain.log_limit import MOST_KINDS
from brain.settings import Settings

SECRET = "s" * 32


def hosts(**settings: Any) -> Hosts:
    return hosts_of(Settings.model_validate(settings))


@pytest.mark.parametrize("bound", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "::1"])
@pytest.mark.parametrize("secret", [None, SECRET])
def test_on_loopback_names_of_loopback_are_allowed_and_no_others(
    bound: str, secret: str | None
) -> None:
    found = hosts(host=bound, jwt_secret=secret)
    for name in ("localhost", "LocalHost", "localhost.", "127.0.0.1", "127.0.0.2", "[::1]"):
        for port in ("", ":", ":5221", ":1"):
            assert found.allows([name + port]), name + port
    for foreign in (
        *("evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost"),
        *("0.0.0.0", "192.0.2.1", "[::]", "[2001:db8::1]", "localhost..", ".localhost", "."),
        *("", " ", ":5221", "localhost:x", "localhost:5221:1", "[::1", "::1]", "[localhost]"),
        *("localhost, evil.example", "a@localhost", "http://localhost", "localhost/", "local host"),
        *("localhost:5221\0", "localhost\n", "*", "127.1", "2130706433", "l\u00f6calhost", "\x7f"),
    ):
        assert not found.allows([foreign]), foreign


def test_a_request_has_one_host() -> None:
    found = hosts()
    assert not found.allows([])
    assert not found.allows(["localhost", "localhost"])
    assert not found.allows(["localhost", "evil.example"])


def test_names_of_a_proxy_are_added_to_those_of_loopback() -> None:
    found = hosts(allowed_hosts="Brain.Example")
    assert found.allows(["brain.example:8443"])
    assert found.allows(["localhost"])
    assert not found.allows(["evil.example"])


@pytest.mark.parametrize("bound", ["0.0.0.0", "::", "192.0.2.1", "brain.example"])
def test_elsewhere_only_listed_names_are_allowed(bound: str) -> None:
    found = hosts(host=bound, allowed_hosts="brain.example, *.a.example [2001:DB8::1] 192.0.2.1")
    for name in ("brain.example", "BRAIN.example.:80", "x.a.example", "x.y.a.example"):
        assert found.allows([name])
    assert found.allows(["[2001:db8:0::1]:5221"]) and found.allows(["192.0.2.1:5221"])
    for name in ("localhost", "a.example", "xa.example", "brain.example.evil", "x.brain.example"):
        assert not found.allows([name])


@pytest.mark.parametrize(
    "bound", ["0.0.0.0", "::", "192.0.2.1", "brain.example", "127.0.0.1.evil.example"]
)
def test_elsewhere_without_a_list_tokens_are_needed(bound: str) -> None:
    with pytest.raises(UsageError, match="BRAIN_ALLOWED_HOSTS") as refused:
        hosts(host=bound)
    assert repr(bound) in str(refused.value)
    assert hosts(host=bound, jwt_secret=SECRET).allows(["any.example"])
    assert hosts(host=bound, jwks_url="https://keys.example").allows([])
    assert hosts(host=bound, allowed_hosts="*").allows(["any.example"])


def test_a_refused_host_is_one_line_with_the_setting_and_no_control_characters(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = hosts()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert not found.allows(["evil\x1b[2J\r\n2026-01-01 WARNING forged"])
        (line,) = (one.getMessage() for one in caplog.records)
        assert line.isprintable()
        assert line.startswith("Host refused: set BRAIN_ALLOWED_HOSTS ")
        for number in range(1000):
            assert not found.allows([f"{number}.example" + "x" * 10_000])
    assert len(caplog.records) == MOST_KINDS
    assert max(len(one.getMessage()) for one in caplog.records) < 1000
