"""Asks a running Brain for a subscription, as a client does."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from brain.client.link import Frame, HandshakeRefused, LinkLost
from brain.client.websocket import WebSocketLink
from brain.doctor.address import Place
from brain.doctor.finding import NotChecked

ANSWER_SECONDS = 4.0
# Of no table, and of no message: a client that may read everything may read it.
ANY_CHANNEL = "doctor"
ID = "doctor"


async def subscribed(place: Place, token: str | None, frame: Mapping[str, Any]) -> Frame:
    """Return the answer to a subscription: `subscribed` or `error`. Raises `NotChecked`."""
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            link = await WebSocketLink.open(f"{place.websocket}/ws/v1", token)
            try:
                await link.receive()
                await link.send({"type": "subscribe", "id": ID, **frame})
                while (answer := await link.receive()).get("id") != ID:
                    pass
            finally:
                await link.close()
    except (LinkLost, HandshakeRefused, OSError, ValueError):
        raise NotChecked("no WebSocket is accepted", "see connection.websocket") from None
    return answer
