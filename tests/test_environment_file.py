"""A file of settings is read as systemd reads it, and what it would ignore is an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from brain.cli.database import read_settings
from brain.cli.log_format import log_format_of
from brain.environment_file import read_environment_file
from brain.errors import UsageError
from brain.settings import Settings, unknown_variables


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "brain.env"


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("A=1\nB=2", {"A": "1", "B": "2"}),
        ("\n# A=1\n  ; B=2\n\tC = 3 \r\n", {"C": "3"}),
        ("A=", {"A": ""}),
        ("A=1\nA=2\n", {"A": "2"}),
        ("A=a b  c ", {"A": "a b  c"}),
        ("A=a#b # c", {"A": "a#b # c"}),
        ("A=a=b", {"A": "a=b"}),
        ("A='a b ' ", {"A": "a b "}),
        ("A='$x \\ \"'", {"A": '$x \\ "'}),
        ('A="a\\"b\\$c\\\\d\\ne"', {"A": 'a"b$c\\d\\ne'}),
        ('A="a\nb"\nB=2', {"A": "a\nb", "B": "2"}),
        ("A='a\nb'\nB=2", {"A": "a\nb", "B": "2"}),
        ("A=a\\\nb\nB=2", {"A": "ab", "B": "2"}),
        ('A="a\\\nb"', {"A": "ab"}),
        ("A=a\\ b\\ ", {"A": "a b "}),
        ("A=it's", {"A": "it's"}),
        ("A='a' 'b'", {"A": "ab"}),
        ("A='a 'b c ", {"A": "a b c"}),
        ("A=postgresql://me:p%40ss@h/d?x=1", {"A": "postgresql://me:p%40ss@h/d?x=1"}),
        ("A=Zürich", {"A": "Zürich"}),
        ("A=$HOME", {"A": "$HOME"}),
        ("A=\\", {"A": ""}),
        ("", {}),
    ],
)
def test_values_are_what_systemd_makes_of_them(
    file: Path, text: str, values: dict[str, str]
) -> None:
    file.write_text(text, newline="")

    found = read_environment_file(file)
    assert {name: variable.value for name, variable in found.items()} == values


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("A=1\nnonsense s3cret", "line 2: it should read NAME=value"),
        ("export A=s3cret", "line 1: it should read NAME=value"),
        ("# a\n\n9A=s3cret", "line 3: it should read NAME=value"),
        ("=s3cret", "line 1: it should read NAME=value"),
        ("A='a\nb\nB=s3cret", "line 1: A has a quote that is not closed"),
        ('B=1\nA="s3cret', "line 2: A has a quote that is not closed"),
        ("A=s3cret\0", "line 1: A has a zero in its value"),
        ("BRAIN_ENV_FILE=other", "line 1: BRAIN_ENV_FILE is for the environment alone"),
    ],
)
def test_an_error_names_the_line_and_nothing_of_a_value(file: Path, text: str, reason: str) -> None:
    file.write_text(text)

    with pytest.raises(UsageError) as refused:
        read_environment_file(file)
    assert str(refused.value) == f"{file}, {reason}"


def test_a_file_that_cannot_be_read_is_named_with_the_setting(file: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read .*: No such file .*\(BRAIN_ENV_FILE\)"):
        read_environment_file(file)
    with pytest.raises(UsageError, match=r"cannot read .*: Is a directory \(BRAIN_ENV_FILE\)"):
        read_environment_file(file.parent)
    file.write_bytes(b"A=1\nB=\xff")
    with pytest.raises(UsageError, match="line 2: not UTF-8"):
        read_environment_file(file)


def test_the_environment_overrides_the_file_and_an_option_both(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text(
        "BRAIN_PORT=1\nBRAIN_WORKERS=1\nBRAIN_RING_BYTES=1\nDATABASE_URL=postgresql://f"
    )
    monkeypatch.setenv("BRAIN_ENV_FILE", str(file))
    monkeypatch.setenv("BRAIN_WORKERS", "2")
    monkeypatch.setenv("BRAIN_RING_BYTES", "2")
    monkeypatch.setenv("BRAIN_MIGRATE", "")

    settings = read_settings(ring_bytes="3")
    assert (settings.port, settings.workers, settings.ring_bytes) == (1, 2, 3)
    assert settings.database_url == "postgresql://f"
    assert settings.env_file == file


def test_an_option_names_another_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("brain_port=7")
    monkeypatch.setenv("BRAIN_ENV_FILE", "/nowhere")

    assert read_settings(env_file=str(file)).port == 7
    with pytest.raises(UsageError, match="cannot read /nowhere"):
        Settings()


@pytest.mark.parametrize("name", ["PORT", "BRAIN_PORT"])
def test_a_value_that_is_wrong_is_named_with_its_place_in_the_file(file: Path, name: str) -> None:
    file.write_text(f"# first\n{name}=much")

    with pytest.raises(UsageError) as refused:
        read_settings(env_file=str(file))
    assert str(refused.value).startswith("BRAIN_PORT or PORT is wrong: 'much' is not ")
    assert str(refused.value).endswith(f" ({file}, line 2)")


def test_a_value_that_is_wrong_elsewhere_has_no_place_in_the_file(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write_text("BRAIN_PORT=7")
    monkeypatch.setenv("BRAIN_PORT", "much")

    with pytest.raises(UsageError) as refused:
        read_settings(env_file=str(file))
    assert str(file) not in str(refused.value)


def test_a_secret_in_the_file_is_not_shown(file: Path) -> None:
    file.write_text("BRAIN_JWT_LEEWAY_SECONDS=-1\nBRAIN_JWT_SECRET=s3cret")

    with pytest.raises(UsageError) as refused:
        read_settings(env_file=str(file))
    assert "s3cret" not in str(refused.value)


def test_every_name_of_a_file_is_a_setting_or_named() -> None:
    names = ["BRAIN_PORT", "PORT", "DATABASE_URL", "PGPASSFILE", "BRAIN_WORKER", "brain_host"]

    assert unknown_variables(names, is_file=True) == [
        "BRAIN_WORKER is no setting: is it BRAIN_WORKERS?",
        "PGPASSFILE is no setting",
    ]


@pytest.mark.parametrize(
    ("typed", "environment", "expected"),
    [
        ("serve --env-file {file}", {}, "json"),
        ("serve", {"BRAIN_ENV_FILE": "{file}"}, "json"),
        ("serve --log-format text --env-file={file}", {}, "text"),
        ("serve --env-file={file}", {"brain_log_format": "text"}, "text"),
        ("serve --env-file=/nowhere", {}, "text"),
        ("migrate", {"BRAIN_ENV_FILE": "{file}"}, "text"),
        ("--help", {}, "text"),
        ("", {}, "text"),
    ],
)
def test_the_format_of_the_log_is_known_before_the_settings(
    file: Path, typed: str, environment: dict[str, str], expected: str
) -> None:
    file.write_text("BRAIN_LOG_FORMAT=json")
    arguments = typed.format(file=file).split()
    variables = {name: value.format(file=file) for name, value in environment.items()}

    assert log_format_of(arguments, variables) == expected
