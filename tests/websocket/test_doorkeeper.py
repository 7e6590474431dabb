from __future__ import annotations

import pytest

from brain.errors import TooManyConnections
from brain.websocket.doorkeeper import Doorkeeper, DoorLimits

A, B = "203.0.113.1", "2001:db8::1"


def doorkeeper(
    in_all: int = 100, per_address: int = 100, per_user: int = 100, anonymous: int = 100
) -> Doorkeeper:
    return Doorkeeper(DoorLimits(in_all, per_address, per_user, anonymous))


def refusal(keeper: Doorkeeper, address: str, user: str | None = None) -> int:
    with pytest.raises(TooManyConnections) as refused:
        keeper.admit(address, user)
    return refused.value.status_code


def test_so_many_are_let_in_and_the_next_when_one_has_left() -> None:
    keeper = doorkeeper(in_all=2)
    leave = keeper.admit(A)
    keeper.admit(B)
    assert refusal(keeper, A) == 503

    leave()
    leave()  # said twice, counted once
    assert keeper.count() == 1
    keeper.admit(A)
    assert refusal(keeper, A) == 503


def test_so_many_from_one_address() -> None:
    keeper = doorkeeper(per_address=1)
    leave = keeper.admit(A)
    assert refusal(keeper, A) == 429
    keeper.admit(B)

    leave()
    keeper.admit(A)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.77", "::1", "", "testclient"])
def test_this_machine_is_not_counted_as_an_address(address: str) -> None:
    keeper = doorkeeper(per_address=1)
    keeper.admit(address)
    keeper.admit(address)
    assert keeper.count() == 2


def test_so_many_of_one_user_from_wherever() -> None:
    keeper = doorkeeper(per_user=1)
    keeper.admit(A, "ann")
    assert refusal(keeper, B, "ann") == 429
    keeper.admit(A, "bob")
    keeper.admit(A)


def test_so_many_without_a_user() -> None:
    keeper = doorkeeper(anonymous=1)
    keeper.admit(A)
    assert refusal(keeper, B) == 503
    keeper.admit(B, "ann")


def test_who_is_refused_is_counted_nowhere() -> None:
    keeper = doorkeeper(per_address=2, anonymous=1)
    keeper.admit(A)
    for _ in range(5):
        refusal(keeper, A)

    assert keeper.count() == 1
    keeper.admit(A, "ann")
