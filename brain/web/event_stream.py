"""`GET /sse`: one subscription of brain.v1 as a stream of server-sent events."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from starlette.datastructures import QueryParams
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from brain.auth.identity import Identity
from brain.auth.token_verifier import token_in
from brain.description.attribute_docs import attribute_docs
from brain.description.routes import (
    Content,
    Conversation,
    DescribedRoute,
    Operation,
    Parameter,
    Right,
)
from brain.errors import TokenRefused
from brain.message.commands import OpenSubscription, Refuse
from brain.message.json_text import dumps
from brain.message.matching import filter_json
from brain.message.v1_client_frames import SubscribeFrame
from brain.message.v1_commands import command_in, parse_frame
from brain.message.v1_format import STREAM_MODELS
from brain.session.admission import Admitted
from brain.session.granting import granted_topic, start_of
from brain.session.json_depth import is_deeper
from brain.session.sources import Sources
from brain.session.stream_session import StreamSession
from brain.session.topic_subscriptions import may_read, names_of
from brain.transport.stream_response import head_response
from brain.web.requests import authorize, identify, require_unrevoked
from brain.web.services import Services

# A member of a `subscribe` frame of which the parameter has JSON; those of the others have text.
JSON_MEMBERS = ("key", "where", "limit", "since")
PARAMETERS = [name for name in SubscribeFrame.model_fields if name not in ("type", "id")]
"""Those of a subscription: members of the frame."""
FLAGS = {"": True, "true": True, "1": True, "false": False, "0": False}
LONGEST_SHOWN = 50

LAST_EVENT_ID = Parameter(
    name="Last-Event-ID",
    description="The id of the last event that the client got: it goes on after it.",
    place="header",
)


def routes(services: Services) -> list[DescribedRoute]:
    return [DescribedRoute("/sse", Endpoint(services).serve, described())]


def described() -> Operation:
    """Return the description of the address, whose parameters are members of `subscribe`."""
    docs = attribute_docs(SubscribeFrame)
    json = {"type": "string", "contentMediaType": "application/json"}
    parameters = [
        Parameter(
            name=name,
            description=docs[name],
            schema=json if name in JSON_MEMBERS else {"type": "string"},
            is_required=SubscribeFrame.model_fields[name].is_required(),
        )
        for name in PARAMETERS
    ]
    return Operation(
        id="getEvents",
        summary="One subscription of brain.v1 as a stream of server-sent events",
        description="The data of the events is described by /asyncapi.json.",
        right=Right.READING,
        schemes=("bearer", "ticket"),
        parameters=[*parameters, LAST_EVENT_ID],
        responses={200: Content(media_type="text/event-stream")},
        errors=(400, 401, 403, 429, 503),
        stream=Conversation(
            id="events",
            summary="One subscription of brain.v1 as server-sent events",
            description="The data of each event is one message. The id of an event is the cursor"
            " to go on after: a client that reconnects sends the last one as `Last-Event-ID`.",
            sends=STREAM_MODELS,
            parameters=parameters,
        ),
    )


@dataclass(frozen=True)
class Endpoint:
    """Serves `/sse`; docs/protocol.md lists its parameters."""

    services: Services

    async def serve(self, request: Request) -> Response:
        services = self.services
        command = self._command(request)
        changes = services.sessions.registry.changes
        identity = await self._identity(request)
        access = await services.authority.read_access(identity, names_of(command))
        require_unrevoked(identity, services.authority)
        authorize(identity, may_read(command, access))
        topic = await granted_topic(command, access, services.sessions)
        if isinstance(topic, Refuse):
            raise HTTPException(400, topic.reason)
        sources: Sources = request.state.sources
        sources.hub.cursor  # noqa: B018  it raises `NotReady`
        start = await start_of(command, sources)
        require_unrevoked(identity, services.authority)
        if request.method == "HEAD":
            return head_response()

        def session_for(admitted: Admitted) -> StreamSession:
            return StreamSession(
                admitted, services.sessions, sources, command, topic, access, changes, start
            )

        return services.handshake.stream(request, session_for, identity, topic.evaluated)

    async def _identity(self, request: Request) -> Identity:
        """Return who sends a request, by its token or ticket. Raises `HTTPException`."""
        authority = self.services.authority
        token = token_in(request.headers, (), {})
        ticket = request.query_params.get("ticket")
        if token is not None or ticket is None:
            return await identify(token, authority, request)
        try:
            return await authority.identify(await self.services.tickets.token_of(ticket))
        except TokenRefused:
            if authority.is_open:
                return authority.anonymous()
            raise ticket_not_valid() from None

    def _command(self, request: Request) -> OpenSubscription:
        """Return what a URL asks for. Raises `HTTPException`."""
        text = frame_in(request.query_params, request.headers.get("last-event-id"))
        if is_deeper(text, self.services.sessions.limits.max_message_depth):
            raise HTTPException(400, "nested too deeply")
        frame = parse_frame(text)
        command = command_in(frame, text) if isinstance(frame, SubscribeFrame) else frame
        if isinstance(command, OpenSubscription):
            return command
        raise HTTPException(400, command.reason if isinstance(command, Refuse) else "")


def ticket_not_valid() -> HTTPException:
    """Return the response to a ticket that is none, or whose token is not valid any more."""
    way_out = "POST /api/brain/ticket issues another one"
    header = f'Bearer error="invalid_token", error_description="{way_out}"'
    return HTTPException(401, f"the ticket is not valid: {way_out}", {"WWW-Authenticate": header})


def frame_in(query: QueryParams, last_event_id: str | None) -> str:
    """Return the `subscribe` frame in a URL. Raises `HTTPException`."""
    frame: dict[str, Any] = {"type": "subscribe", "id": "sse"}
    for name, value in query.multi_items():
        if name == "token":
            raise HTTPException(
                400, "a ticket belongs here, and no token: see POST /api/brain/ticket"
            )
        if name == "ticket":
            continue
        if name not in PARAMETERS:
            there_are = ", ".join([*PARAMETERS, "ticket"])
            raise HTTPException(
                400, f"there is no parameter {name[:LONGEST_SHOWN]}; there are {there_are}"
            )
        if name in frame:
            raise HTTPException(400, f"{name} is there twice: a stream is one subscription")
        frame[name] = member(name, value)
    if last_event_id:
        frame["after"] = last_event_id
        frame.pop("since", None)
    return dumps(frame)


def member(name: str, value: str) -> Any:
    """Return the member of a frame in a parameter, ready for `dumps`. Raises `HTTPException`."""
    if name == "snapshot":
        return FLAGS.get(value, value)
    if name not in JSON_MEMBERS:
        return value
    try:
        filter_json(value)
    except (ValueError, RecursionError):
        raise HTTPException(400, f"{name} must be JSON") from None
    return orjson.Fragment(value)
