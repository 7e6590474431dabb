"""What more than one kind of client says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

UNKNOWN_FORMAT = "Invalid message format"


class ClientFrame(BaseModel):
    """Something that a client says; keys that mean nothing here are passed over."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class SignFrame(ClientFrame):
    """A sign of life, or the answer to one."""

    type: Literal["ping", "pong"]


class AuthFrame(ClientFrame):
    """Another token of the same user."""

    type: Literal["auth"]
    token: str = Field(min_length=1)
