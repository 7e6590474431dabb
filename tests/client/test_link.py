"""What the answer of a server means that does not open a connection."""

from __future__ import annotations

import pytest

from brain.client.link import HandshakeRefused, LinkLost, refusal
from brain.client.refusals import closed_for_good
from brain.client.transport_choice import TransportChoice


@pytest.mark.parametrize("status", [400, 401, 403, 404, 426])
def test_a_refusal_that_would_come_again_has_the_sentence_of_the_server(status: int) -> None:
    refused = refusal(status, "orders has no column nosuch\n", None)
    assert isinstance(refused, HandshakeRefused)
    assert (refused.status, refused.text) == (status, "orders has no column nosuch")


@pytest.mark.parametrize(
    ("header", "seconds"), [("7", 7.0), (None, 0.0), ("Wed, 21 Oct 2026 07:28:00 GMT", 0.0)]
)
@pytest.mark.parametrize("status", [429, 502, 503])
def test_a_server_that_is_busy_is_asked_again_not_before_it_says(
    status: int, header: str | None, seconds: float
) -> None:
    lost = refusal(status, "too many connections", header)
    assert isinstance(lost, LinkLost)
    assert lost.retry_after == seconds
    assert "too many connections" in lost.why


@pytest.mark.parametrize("code", [None, 1006, 1011, 1012, 1013, 4008, 4009, 4010, 4029, 4408])
def test_an_end_below_4500_is_not_for_good(code: int | None) -> None:
    assert closed_for_good(LinkLost("why", code=code), is_fixed=True) is None


@pytest.mark.parametrize("code", [4500, 4501, 4503, 4504, 4999])
def test_an_end_from_4500_on_is_for_good(code: int) -> None:
    closed = closed_for_good(LinkLost("why", code=code), is_fixed=False)
    assert closed is not None and closed.code == code


def test_an_expired_token_ends_a_client_that_has_no_other() -> None:
    lost = LinkLost("its token has expired", code=4401)
    assert closed_for_good(lost, is_fixed=False) is None
    assert closed_for_good(lost, is_fixed=True) is not None


def test_streams_are_tried_after_two_failures_in_a_row_until_they_fail_too() -> None:
    choice = TransportChoice("auto")
    assert not choice.websocket_failed(is_refused=False)
    choice.websocket_works()
    assert not choice.websocket_failed(is_refused=False)
    assert choice.websocket_failed(is_refused=False)
    choice.event_stream_works()
    assert choice.is_event_stream
    choice.event_stream_failed()
    assert not choice.is_event_stream
    assert not choice.websocket_failed(is_refused=False)


@pytest.mark.parametrize("is_refused", [True, False])
def test_a_forced_websocket_never_gives_way(is_refused: bool) -> None:
    choice = TransportChoice("websocket")
    assert not any(choice.websocket_failed(is_refused=is_refused) for _ in range(5))
