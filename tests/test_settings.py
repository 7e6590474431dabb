from __future__ import annotations

import re
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from brain.auth.keys import keys_of
from brain.cli.database import read_settings, require_url
from brain.errors import UsageError, WrongDatabaseUrl
from brain.settings import Settings, unknown_variables

SETTINGS = Settings.model_fields
NUMBERS = [name for name, field in SETTINGS.items() if field.annotation in (int, float)]
BOOLEANS = [name for name, field in SETTINGS.items() if "bool" in str(field.annotation)]


@pytest.mark.parametrize("name", ["BRAIN_DATABASE_URL", "DATABASE_URL"])
def test_the_database_url_is_read_under_both_names(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "postgresql://here")

    assert Settings().database_url == "postgresql://here"


def test_brains_own_name_overrides_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "1")
    monkeypatch.setenv("BRAIN_PORT", "2")

    assert Settings().port == 2
    assert Settings(port=3).port == 3


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    monkeypatch.setenv("HOST", "")

    assert Settings().database_url is None
    assert Settings().host == "localhost"


@pytest.mark.parametrize(
    ("name", "value"),
    [("PORT", "70000"), ("BRAIN_RING_BYTES", "0"), ("BRAIN_IDLE_POLL_SECONDS", "-1")],
)
def test_a_value_out_of_range_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)

    with pytest.raises(ValidationError):
        Settings()


@pytest.mark.parametrize("name", [*NUMBERS, *BOOLEANS])
@pytest.mark.parametrize("value", ["-7", "much", "inf"])
def test_an_error_names_the_whole_variable_the_value_and_what_is_right(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"BRAIN_{name.upper()}", value)

    with pytest.raises(UsageError) as refused:
        read_settings()
    variable, _, reason = str(refused.value).partition(" is wrong: ")
    assert variable.split(" or ")[0] == f"BRAIN_{name.upper()}"
    assert f"'{value}'" in reason
    assert any(word in reason for word in ("integer", "number", "boolean", "than", "finite"))


def test_a_token_of_the_metrics_that_is_empty_is_refused_and_an_empty_variable_is_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ValidationError, match="metrics_token"):
        Settings(metrics_token=SecretStr(""))
    monkeypatch.setenv("BRAIN_METRICS_TOKEN", "")
    assert Settings().metrics_token is None


@pytest.mark.parametrize("name", [*NUMBERS, *BOOLEANS])
def test_an_error_in_an_option_names_the_option_and_the_variable(name: str) -> None:
    options: dict[str, Any] = {name: "much"}
    with pytest.raises(UsageError) as refused:
        read_settings(**options)

    assert str(refused.value).startswith(f"--{name.replace('_', '-')} is wrong: 'much' is not ")
    assert str(refused.value).endswith(f"(it sets BRAIN_{name.upper()})")


def test_an_origin_is_normalized_and_what_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(
        "BRAIN_ALLOWED_ORIGINS", "https://A.example:443, http://b:80 http://c:81 null HTTP://D:*"
    )
    assert Settings().allowed_origins == (
        "https://a.example",
        "http://b",
        "http://c:81",
        "null",
        "http://d:*",
    )
    for wrong in (
        "*",
        "a.example",
        "a.example:*",
        "https://*.example",
        "https://a.example:*1",
        "https://a.example/",
        "https://a.example/path",
        "//a",
        "http://",
    ):
        monkeypatch.setenv("BRAIN_ALLOWED_ORIGINS", f"https://good.example {wrong}")
        with pytest.raises(UsageError, match="BRAIN_ALLOWED_ORIGINS is wrong: ") as refused:
            read_settings()
        assert f"'{wrong}'" in str(refused.value)


def test_a_host_is_a_name_without_scheme_and_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(
        "BRAIN_ALLOWED_HOSTS", "A.example., *.B.example [2001:DB8::1] ::1 10.0.0.1 *"
    )
    assert Settings().allowed_hosts == (
        *("a.example", "*.b.example", "2001:db8::1", "::1", "10.0.0.1", "*"),
    )
    for wrong in ("https://a", "a:80", "[::1]:80", "a/b", "a.*", "**", "*.*", "u@a", "[::1", "."):
        monkeypatch.setenv("BRAIN_ALLOWED_HOSTS", f"good.example {wrong}")
        with pytest.raises(UsageError, match="BRAIN_ALLOWED_HOSTS is wrong: ") as refused:
            read_settings()
        assert f"'{wrong}'" in str(refused.value)


def test_a_variable_that_is_no_setting_is_named_with_the_nearest_that_is_one() -> None:
    environment = {
        "BRAIN_ALOWED_ORIGINS": "x",
        "brain_hosts": "x",
        "BRAIN_QQQQQ": "x",
        "BRAIN_PORT": "1",
        "brain_workers": "1",
        "HOST": "x",
        "BRAINS": "x",
        "BRAIN_URL": "of brain listen",
        "BRAIN_TOKEN": "of brain listen",
    }
    assert unknown_variables(environment) == [
        "BRAIN_ALOWED_ORIGINS is no setting: is it BRAIN_ALLOWED_ORIGINS?",
        "BRAIN_QQQQQ is no setting",
        "brain_hosts is no setting: is it BRAIN_HOST?",
    ]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ALOWED_ORIGINS", "ALLOWED_ORIGINS"),
        ("ALOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("ALLOWED_ORIGIN", "ALLOWED_ORIGINS"),
        ("JWT_SECERT", "JWT_SECRET"),
        ("PORTS", "PORT"),
        ("POTR", "PORT"),
        ("WORKER", "WORKERS"),
        ("DATABASE", "DATABASE_URL"),
        ("JWT_JWKS_URL", "JWKS_URL"),
        ("RETENTION", None),
        ("FOO", None),
        ("RATE", None),
        ("HOME", None),
        ("TEST", None),
        ("DEBUG", None),
        ("TRACE_LEVEL", None),
        ("X", None),
        ("", None),
    ],
)
def test_only_a_near_miss_is_taken_for_a_setting(name: str, meant: str | None) -> None:
    (line,) = unknown_variables({f"BRAIN_{name}": "x"})
    assert line == f"BRAIN_{name} is no setting" + (f": is it BRAIN_{meant}?" if meant else "")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://h:port/d?password=secret",
        "postgresql://me:secret#1@h/d",
        "postgresql://me:secret?1@h/d",
        "postgresql://me:secret/1@h/d",
        "mysql://me:secret",
        "me:secret",
        "host=h password=secret",
    ],
)
def test_a_wrong_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(WrongDatabaseUrl, match="must read postgresql://user:password@") as refused:
        require_url(url)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("https://me:secret@h/keys", "no password"),
        ("http://127.0.0.1.evil.example/keys", "must begin with https://"),
        ("http://127.0.0.1@evil.example/keys", "must begin with https://"),
        ("http://localhost.evil.example/keys", "must begin with https://"),
    ],
)
def test_keys_that_others_could_replace_are_refused(url: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason) as refused:
        keys_of(Settings(jwks_url=url))
    assert "secret" not in str(refused.value)


def test_trusted_proxies_are_addresses_and_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = (
        "10.42.0.0/16, 192.0.2.1 192.0.2.2/32 fd00::/8 2001:db8::/32 2001:DB8::1 2001:db8::2/128"
    )
    monkeypatch.setenv("BRAIN_TRUSTED_PROXIES", given)

    assert Settings().trusted_proxies == (
        *("10.42.0.0/16", "192.0.2.1", "192.0.2.2"),
        *("fd00::/8", "2001:db8::/32", "2001:db8::1", "2001:db8::2"),
    )


@pytest.mark.parametrize("value", ["*", "proxy", "10.42.0.1/16", "10.0.0.0/33", "192.0.2.1:80"])
def test_a_trusted_proxy_that_is_no_network_is_refused(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    monkeypatch.setenv("BRAIN_TRUSTED_PROXIES", value)

    with pytest.raises(UsageError, match=f"BRAIN_TRUSTED_PROXIES.*{re.escape(value)}"):
        read_settings()
