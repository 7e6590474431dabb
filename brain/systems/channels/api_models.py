"""The requests of the HTTP API of channels, and their responses."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from brain.description.routes import Operation, Right, path_parameter

TAG = "channels"

Name = Annotated[str, Field(min_length=1, max_length=255)]


class Broadcast(BaseModel):
    """A message for the subscribers of a channel."""

    channel: Name
    message: Any
    type: Name = "message"


class BroadcastToAll(BaseModel):
    """
    A message for every client of channels, whatever it has subscribed to.

    It may be flat: fields beside `type` and `data` are part of its data.
    """

    model_config = ConfigDict(extra="allow")

    type: Name
    data: Any = None


class Broadcasted(BaseModel):
    """The message is in the log."""

    status: Literal["broadcasted"]
    channel: str
    subscribers: int
    """How many clients the channel has at the moment."""


class BroadcastedToAll(BaseModel):
    """The message is in the log."""

    status: Literal["broadcasted"]
    connections: int
    """How many clients there are at the moment."""


class Statistics(BaseModel):
    """How many clients there are, on all nodes."""

    total_connections: int
    total_users: int
    total_channels: int
    channels: dict[str, int]
    """The number of clients of each channel that the token may read."""


class Subscribers(BaseModel):
    """The clients of a channel."""

    channel: str
    subscribers: int
    connection_ids: list[str]


class Info(BaseModel):
    """That Brain runs, and its addresses."""

    service: Literal["brain"]
    version: str
    endpoints: dict[str, str]
    channels: list[str]
    ping_seconds: float
    timeout_seconds: float


BROADCAST = Operation(
    id="broadcast",
    summary="Publish a message on a channel",
    description="It needs a token with the channel in its claim `publish`.",
    method="POST",
    tag=TAG,
    right=Right.TOKEN,
    body=Broadcast,
    responses={200: Broadcasted},
    errors=(401, 403, 413, 415, 422, 503),
)
BROADCAST_TO_ALL = Operation(
    id="broadcastToAll",
    summary="Publish a message to every client of channels",
    description="It needs a token with `*` in its claim `publish`.",
    method="POST",
    tag=TAG,
    right=Right.TOKEN,
    body=BroadcastToAll,
    responses={200: BroadcastedToAll},
    errors=(401, 403, 413, 415, 422, 503),
)
STATISTICS = Operation(
    id="getStatistics",
    summary="How many clients there are, and on which channels",
    tag=TAG,
    right=Right.TOKEN,
    responses={200: Statistics},
    errors=(401, 503),
)
SUBSCRIBERS = Operation(
    id="getSubscribers",
    summary="The clients of a channel",
    tag=TAG,
    right=Right.READING,
    parameters=(path_parameter("channel", "The channel."),),
    responses={200: Subscribers},
    errors=(401, 403, 404, 503),
)
INFO = Operation(
    id="getInfo", summary="That Brain runs, and its addresses", tag=TAG, responses={200: Info}
)
