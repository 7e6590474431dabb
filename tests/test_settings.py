from __future__ import annotations

import pytest
from pydantic import ValidationError

from brain.settings import Settings


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
