"""Routes that describe themselves; the documents are made of those of an application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Any, Literal

from pydantic import BaseModel
from starlette.routing import Route, WebSocketRoute


class Right(Enum):
    """What an address needs, where tokens are needed."""

    NONE = auto()
    READING = auto()
    """A token, but for channels that anonymous clients may read."""
    TOKEN = auto()


SCHEMES = ("bearer", "token")
"""Where the token of a request or a WebSocket may be: the names of `SECURITY_SCHEMES`."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A part of a path, a member of a query, or a header."""

    name: str
    description: str
    place: Literal["path", "query", "header"] = "query"
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    is_required: bool = False


def path_parameter(name: str, description: str) -> Parameter:
    return Parameter(name=name, description=description, place="path", is_required=True)


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """What is sent at an address, one message at a time."""

    id: str
    """Unique, and an identifier: programs that generate code make names of it."""
    summary: str
    sends: Sequence[type[BaseModel]]
    """The models of what Brain sends."""
    receives: Sequence[type[BaseModel]] = ()
    """The models of what clients send."""
    description: str = ""
    parameters: Sequence[Parameter] = ()
    right: Right = Right.READING


@dataclass(frozen=True, kw_only=True)
class Content:
    """What a response has in place of JSON of a model."""

    media_type: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})


JSON = Content(media_type="application/json", schema={})


@dataclass(frozen=True, kw_only=True)
class Operation:
    """A request, and its responses."""

    id: str
    """Unique, and an identifier: programs that generate code make names of it."""
    summary: str
    responses: Mapping[int, type[BaseModel] | Content | None]
    """The model of the JSON, by status; None: there is no body."""
    errors: Sequence[int] = ()
    """The statuses of `Failure`, apart from those that any request may get."""
    method: Literal["GET", "POST"] = "GET"
    description: str = ""
    tag: str = "brain"
    """The name of the system, or `brain` for the core."""
    right: Right = Right.NONE
    schemes: Sequence[str] = SCHEMES
    """Where the token may be: the names of `SECURITY_SCHEMES`."""
    parameters: Sequence[Parameter] = ()
    body: type[BaseModel] | None = None
    """The model of the JSON that a client sends."""
    stream: Conversation | None = None
    """If the response is a stream: what is sent in it."""


class DescribedRoute(Route):
    """A route for one method."""

    def __init__(self, path: str, endpoint: Callable[..., Any], operation: Operation) -> None:
        super().__init__(path, endpoint, methods=[operation.method])
        self.operation = operation


class DescribedWebSocketRoute(WebSocketRoute):
    """A route at which clients are spoken to in one way, or in several."""

    def __init__(
        self, path: str, endpoint: Callable[..., Any], *conversations: Conversation
    ) -> None:
        super().__init__(path, endpoint)
        self.conversations = conversations


class Failure(BaseModel):
    """Why a request was refused, or failed."""

    error: str
