"""Whose `X-Forwarded-For` Brain believes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from tests.end_to_end.brain import RunningBrain, message, running_brain

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs all of 127.0.0.0/8")

CLIENT = {"X-Forwarded-For": "192.0.2.7"}


def connection(brain: RunningBrain, proxy: str, headers: dict[str, str]) -> connect:
    """Connect as a proxy with an address of its own would."""
    url = f"ws://127.0.0.1:{brain.port}/ws"
    return connect(url, proxy=None, additional_headers=headers, local_addr=(proxy, 0))


async def test_the_address_that_a_trusted_proxy_passes_on_is_the_one_that_is_limited(
    database: str, tmp_path: Path
) -> None:
    limits = {"BRAIN_TRUSTED_PROXIES": "127.0.1.0/24", "BRAIN_MAX_CONNECTIONS_PER_ADDRESS": "1"}
    async with running_brain(tmp_path, "--database-url", database, **limits) as brain:
        async with connection(brain, "127.0.1.9", CLIENT) as first:
            assert (await message(first))["type"] == "connected"
            with pytest.raises(InvalidStatus) as refused:
                await connection(brain, "127.0.1.10", CLIENT)
            assert refused.value.response.status_code == 429
            # Of another one the header is not believed, and loopback is not limited.
            for _ in range(2):
                async with connection(brain, "127.0.2.9", CLIENT) as client:
                    assert (await message(client))["type"] == "connected"
