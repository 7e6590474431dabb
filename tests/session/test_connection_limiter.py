from __future__ import annotations

import pytest

from brain.errors import TooManyConnections
from brain.session.connection_limiter import (
    MOST_EVALUATED_TOGETHER,
    ConnectionLimiter,
    ConnectionQuotas,
)

A, B = "203.0.113.1", "2001:db8::1"


def connection_limiter(
    in_all: int = 100, per_address: int = 100, per_user: int = 100, anonymous: int = 100
) -> ConnectionLimiter:
    return ConnectionLimiter(ConnectionQuotas(in_all, per_address, per_user, anonymous))


def refusal(limiter: ConnectionLimiter, address: str, user: str | None = None) -> int:
    with pytest.raises(TooManyConnections) as refused:
        limiter.admit(address, user)
    return refused.value.http_status


def test_the_connections_of_a_process_are_limited_and_released() -> None:
    limiter = connection_limiter(in_all=2)
    connection = limiter.admit(A)
    limiter.admit(B)
    assert refusal(limiter, A) == 503

    connection.release()
    connection.release()  # called twice, counted once
    assert limiter.count() == 1
    limiter.admit(A)
    assert refusal(limiter, A) == 503


def test_the_connections_from_one_address_are_limited() -> None:
    limiter = connection_limiter(per_address=1)
    connection = limiter.admit(A)
    assert refusal(limiter, A) == 429
    limiter.admit(B)

    connection.release()
    limiter.admit(A)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1", "", "127.0.0.1:80"])
def test_loopback_is_not_counted_as_an_address(address: str) -> None:
    limiter = connection_limiter(per_address=1)
    limiter.admit(address)
    limiter.admit(address)
    assert limiter.count() == 2


@pytest.mark.parametrize(
    ("address", "other"),
    [
        ("unknown", "unknown"),
        ("_hidden", "_hidden"),
        ("a b", "a b"),
        ("localhost", "localhost"),
        ("192.0.2.1:4711", "192.0.2.1:4712"),
        ("[2001:db8::1]:4711", "2001:db8:0::1"),
        (f"{'x' * 1000}1", f"{'x' * 1000}2"),
    ],
)
def test_what_a_proxy_sends_in_place_of_an_address_is_counted(address: str, other: str) -> None:
    limiter = connection_limiter(per_address=1)
    limiter.admit(address)
    limiter.admit(A)
    assert refusal(limiter, other) == 429


def test_the_connections_of_one_user_are_limited_from_any_address() -> None:
    limiter = connection_limiter(per_user=1)
    limiter.admit(A, "ann")
    assert refusal(limiter, B, "ann") == 429
    limiter.admit(A, "bob")
    limiter.admit(A)


def test_the_connections_without_a_user_are_limited() -> None:
    limiter = connection_limiter(anonymous=1)
    limiter.admit(A)
    assert refusal(limiter, B) == 503
    limiter.admit(B, "ann")


def test_a_refused_connection_is_not_counted() -> None:
    limiter = connection_limiter(per_address=2, anonymous=1)
    limiter.admit(A)
    for _ in range(5):
        refusal(limiter, A)

    assert limiter.count() == 1
    limiter.admit(A, "ann")


def test_an_anonymous_connection_that_becomes_one_of_a_user_is_counted_as_such() -> None:
    limiter = connection_limiter(per_user=1, anonymous=2)
    first, second = limiter.admit(A), limiter.admit(A)
    first.assign_user("ann")
    limiter.admit(A)
    with pytest.raises(TooManyConnections):
        second.assign_user("ann")
    assert refusal(limiter, A) == 503

    first.release()
    second.assign_user("ann")
    limiter.admit(A)
    assert refusal(limiter, A) == 503
    assert limiter.count() == 3


def test_values_of_filters_are_counted_to_the_user_or_the_address_until_the_end() -> None:
    limiter = connection_limiter()
    anonymous, neighbour, local = limiter.admit(A), limiter.admit(A), limiter.admit("127.0.0.1")
    anonymous.evaluate(MOST_EVALUATED_TOGETHER)
    assert not neighbour.may_evaluate(1)
    assert anonymous.may_evaluate(MOST_EVALUATED_TOGETHER)
    assert local.may_evaluate(MOST_EVALUATED_TOGETHER)

    anonymous.assign_user("ann")
    assert neighbour.may_evaluate(1)
    other = limiter.admit(B, "ann")
    assert not other.may_evaluate(1)
    assert other.may_evaluate(0)
    anonymous.release()
    anonymous.release()
    assert other.may_evaluate(MOST_EVALUATED_TOGETHER)
