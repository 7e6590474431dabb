"""Client frames that several wire formats have."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

UNKNOWN_FORMAT = "Invalid message format"


class ClientFrame(BaseModel):
    """A client frame; unknown keys are ignored."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class HeartbeatFrame(ClientFrame):
    """A heartbeat, or the answer to one."""

    type: Literal["ping", "pong"]


class AuthFrame(ClientFrame):
    """Another token of the same user."""

    type: Literal["auth"]
    token: str = Field(min_length=1)
