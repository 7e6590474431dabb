"""No text that Brain shows holds the password of a URL, however odd the URL is."""

from __future__ import annotations

import random
import sys
from itertools import product

import pytest

from brain.cli.database import require_url
from brain.cli.main import main
from brain.database.connection import connect
from brain.database.url import check_url, outlined, shown
from brain.errors import DatabaseError, WrongDatabaseUrl
from brain.problems import printable

SECRET = "s3cret"
# What stands before and after it in a password.
ODD = [
    *("", *"@/?#:'\"%=,[]\\\x1b\xfc", "://", "@srv:", "@h:1/", "%40", "12/34", "5432"),
    *("password@", "user:password@host", "password="),
]
BLANK = [" ", "\t", "\n", " @", "@ ", "1 ", "/ ", "a b@c "]
PASSWORDS = [f"{before}{SECRET}{after}" for before, after in product(ODD, ODD)]
WITH_BLANKS = [f"{before}{SECRET}{after}" for before, after in product(ODD, BLANK)]
WITH_BLANKS += [f"{before}{SECRET}{after}" for before, after in product(BLANK, ODD)]
# In these a password may have blanks, even within other text.
PLAIN = [
    "postgresql://ann:{}@127.0.0.1:1/db",
    "postgres://ann:{}@127.0.0.1:1",
    "postgresql://:{}@127.0.0.1:1/db",
    "POSTGRESQL://ann:{}@127.0.0.1:1/db",
    "postgresql+asyncpg://ann:{}@127.0.0.1:1/db",
    "postgresql://ann:{}@[::1]:1/db",
    "postgresql://ann:{}@127.0.0.1:1,127.0.0.1:2/db?sslmode=disable",
    "postgresql:ann:{}@127.0.0.1:1/db",
    "postgresql://127.0.0.1:1/db?password={}",
    "postgresql:///db?host=127.0.0.1&port=1&pass%77ord={}",
    "postgresql://127.0.0.1:1/db?%50ASSWORD={}&sslmode=disable",
    "jdbc:postgresql://127.0.0.1:1/db?user=ann&password={}",
]
STRANGE = [
    "postgresql://ann@srv:{}@127.0.0.1:1/db",
    "postgresql://dom/ann:{}@127.0.0.1:1/db",
    "postgresql://a:b@c:{}@127.0.0.1:1/db",
    "postgresql:/ann:{}@127.0.0.1:1/db",
    "mysql://ann:{}@127.0.0.1:1/db",
    "//ann:{}@127.0.0.1:1/db",
    "ann:{}@127.0.0.1",
]
# Within other text no password would be looked for in these.
INCOMPLETE = ["postgresql://ann:{}", "ann:{}", "{}"]


def urls(shapes: list[str], passwords: list[str]) -> list[str]:
    return [shape.format(password) for shape, password in product(shapes, passwords)]


RECOGNISED = [*urls(PLAIN, PASSWORDS + WITH_BLANKS), *urls(STRANGE, PASSWORDS)]
ALL = [*RECOGNISED, *urls(STRANGE, WITH_BLANKS)]


def test_an_odd_url_is_checked_and_shown_without_its_password() -> None:
    accepted = 0
    for url in [*ALL, *urls(INCOMPLETE, ["s3cret", "a s3cret"])]:
        for check in (check_url, require_url):
            try:
                check(url)
            except WrongDatabaseUrl as error:
                assert SECRET not in str(error), url
                assert "percent-encoded" in str(error)
                assert shown(url) == outlined(url) == "postgresql://..."
            else:
                accepted += 1
                assert SECRET not in shown(url) + outlined(url), url
    assert accepted > 100


def test_within_other_text_the_password_of_a_url_is_masked() -> None:
    for url in RECOGNISED:
        for text in (url, f"at {url} it failed", f"at {url!r}: failed", f"({url}, 1)"):
            assert SECRET not in printable(text), url


async def test_an_error_of_connecting_is_without_the_password() -> None:
    accepted = [url for url in ALL if shown(url) != "postgresql://..."]
    for url in random.Random(1).sample(accepted, 60):
        with pytest.raises((DatabaseError, WrongDatabaseUrl)) as failed:
            await connect(url)
        assert SECRET not in str(failed.value), url


def test_an_error_of_the_command_line_is_without_the_password_of_an_argument(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def typed(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["brain", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 2, arguments
        return capsys.readouterr().err

    for url in random.Random(1).sample(ALL, 300):
        for arguments in (
            [url],
            ["serve", url],
            ["serve", *url.split(), "more"],
            ["serve", f"--database-ulr={url}"],
            ["publish", "channel", "type", "{}", url, url],
            ["token", "--sub=ann", "--seconds", url],
            ["token", "--sub=ann", f"--seconds={url}"],
            ["watch", "orders", "--timing", url],
            ["watches", f"--database-url={url.replace('@', '@@', 1)}", url],
        ):
            assert SECRET not in typed(*arguments), arguments
    for url in random.Random(2).sample(RECOGNISED, 100):
        assert SECRET not in typed("serve", "--port", url), url
