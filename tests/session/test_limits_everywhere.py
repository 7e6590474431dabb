"""The limits of a client hold at every WebSocket address of a running Brain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from brain.close_codes import CloseCode
from tests.end_to_end.brain import RunningBrain, message

LIMITS = {
    "BRAIN_MESSAGES_PER_SECOND": "10",
    "BRAIN_BYTES_PER_SECOND": "2048",
    "BRAIN_MAX_MESSAGE_DEPTH": "5",
    "BRAIN_MAX_MESSAGE_BYTES": "4000",
}


class Address(NamedTuple):
    path: str
    greetings: int
    """The number of messages that a client receives when it connects."""


ADDRESSES = (
    Address("/ws", 1),
    Address("/ws?token=ann", 1),
    Address("/ws/v1", 1),
    Address("/ws/connect", 1),
    Address("/ws/channel/missions", 1),
    Address("/?token=ann", 0),
    Address("/ws/workflows", 1),
)

EXCESSES: dict[str, tuple[Sequence[str | bytes], CloseCode]] = {
    "messages per second": (["{}"] * 21, CloseCode.RATE_LIMITED),
    "bytes per second": (["x" * 3000] * 2, CloseCode.RATE_LIMITED),
    "depth": (["[" * 6 + "]" * 6], CloseCode.NESTED_TOO_DEEPLY),
    "binary": ([b"{}"], CloseCode.UNSUPPORTED_DATA),
    "message size": (["x" * 4001], CloseCode.MESSAGE_TOO_BIG),
}


@pytest.fixture(scope="module")
def brain_settings() -> dict[str, str]:
    return LIMITS


def client(brain: RunningBrain, address: Address) -> connect:
    url = f"ws://localhost:{brain.port}{address.path}"
    return connect(url, proxy=None, compression=None, max_queue=None)


async def greeted(connection: ClientConnection, address: Address) -> None:
    for _ in range(address.greetings):
        await message(connection)


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address.path)
@pytest.mark.parametrize("excess", EXCESSES)
async def test_a_client_that_exceeds_a_limit_is_closed(
    module_brain: RunningBrain, address: Address, excess: str
) -> None:
    sent, code = EXCESSES[excess]
    async with client(module_brain, address) as connection:
        await greeted(connection, address)
        with pytest.raises(ConnectionClosed) as closed:
            for each in sent:
                await connection.send(each)
            while True:
                await message(connection)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


@pytest.mark.parametrize("address", ADDRESSES, ids=lambda address: address.path)
async def test_a_client_within_the_limits_stays_connected(
    module_brain: RunningBrain, address: Address
) -> None:
    async with client(module_brain, address) as connection:
        await greeted(connection, address)
        for each in (*["{}"] * 15, "[" * 5 + "]" * 5, "x" * 3900):
            await connection.send(each)

        await (await connection.ping())
