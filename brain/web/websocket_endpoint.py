"""The WebSocket endpoint `/ws`, and how any route opens a session on channels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from starlette.datastructures import QueryParams
from starlette.websockets import WebSocket

from brain.auth.identity import Identity
from brain.description.routes import Conversation, DescribedWebSocketRoute
from brain.errors import AccessUndecided
from brain.message.base_format import BaseFormat
from brain.message.cursor_format import CursorFormat
from brain.message.matching import (
    TOO_MANY_COMBINATIONS,
    Filter,
    filter_json,
    has_too_many_combinations,
    parse_filter,
    requested_topics,
)
from brain.message.number_strings import NumberStringsFormat
from brain.message.wire_format import WireFormat
from brain.session.admission import Admitted
from brain.session.channel_session import ChannelSession, SessionRequest
from brain.transport.handshake import refuse
from brain.web.parameters import OF_CHANNELS
from brain.web.requests import wants_number_strings
from brain.web.services import Services

# Asks for cursors where the URL cannot.
CURSOR_SUBPROTOCOL = "brain.cursor"
# What only clients that were written for Brain put into the URL.
OWN_PARAMETERS = [parameter.name for parameter in OF_CHANNELS]


@dataclass(frozen=True)
class Profile:
    """How `/ws` speaks with a kind of client."""

    wire_format: WireFormat
    channels: Sequence[str] = ()
    """Those of a client that names none."""
    parameter: str | None = None
    """The query parameter that selects the profile; None: it is the default."""
    bare_format: WireFormat | None = None
    """The wire format for clients that ask for nothing of Brain's own, if they have another."""
    summary: str = "Rows of watched tables, and published messages"
    """What its clients get, for documents."""

    @cached_property
    def formats(self) -> Mapping[tuple[bool, bool], WireFormat]:
        """The wire format: with cursors or without, with long numbers as strings or not."""
        exact = NumberStringsFormat(self.wire_format)
        return {
            (False, False): self.wire_format,
            (True, False): CursorFormat(self.wire_format),
            (False, True): exact,
            (True, True): CursorFormat(exact),
        }


def routes(services: Services, profiles: Sequence[Profile]) -> list[DescribedWebSocketRoute]:
    """Return `/ws` with the registered profiles; without a default one, it has Brain's own."""
    every = [*profiles, Profile(BaseFormat(services.schemas))]
    selectable = [profile for profile in every if profile.parameter is not None]
    default = next(profile for profile in every if profile.parameter is None)
    conversations = map(conversation, [default, *selectable])
    return [DescribedWebSocketRoute("/ws", Endpoint(services, every).serve, *conversations)]


def conversation(profile: Profile) -> Conversation:
    """Return the description of how `/ws` speaks with a kind of client."""
    wire_format = profile.formats[True, False]
    texts = []
    if profile.parameter is not None:
        texts.append(f"Clients are served like this if `{profile.parameter}` is in the URL.")
    if profile.channels:
        texts.append(f"A client that names no channel gets {', '.join(profile.channels)}.")
    texts.append(f"The subprotocol `{CURSOR_SUBPROTOCOL}` asks for cursors, as `?cursor=` does.")
    return Conversation(
        id="ws" if profile.parameter is None else f"ws{profile.parameter.capitalize()}",
        summary=profile.summary,
        description=" ".join(texts),
        sends=wire_format.sent_models,
        receives=wire_format.received_models,
        parameters=OF_CHANNELS,
    )


class Endpoint:
    """Serves `/ws`; docs/protocol.md lists its parameters."""

    def __init__(self, services: Services, profiles: Sequence[Profile]) -> None:
        self._services = services
        self._profiles = profiles

    async def serve(self, websocket: WebSocket) -> None:
        subprotocol = next(
            (s for s in websocket.scope["subprotocols"] if s == CURSOR_SUBPROTOCOL), None
        )
        try:
            request = self._request(websocket.query_params, subprotocol is not None)
        except ValueError as error:
            await refuse(websocket, 400, str(error))
        else:
            await open_channels(websocket, self._services, request, subprotocol=subprotocol)

    def _request(self, query: QueryParams, wants_cursors: bool) -> SessionRequest:
        """Return what a URL asks for. Raises `ValueError`, with what is wrong."""
        profile = self._profile(query)
        wants_snapshot = "snapshot" in query
        has_cursors = "cursor" in query or wants_snapshot or wants_cursors
        named = query.getlist("channel")
        most = self._services.sessions.limits.max_subscriptions
        if len(set(named)) > most:
            raise ValueError(f"more than {most} subscriptions")
        names = named or profile.channels
        where = parse_filter_parameter(query.get("where"))
        if wants_snapshot and (where or any(":" in name for name in names)):
            raise ValueError("a snapshot is of whole channels")
        has_strings = wants_number_strings(query)
        if profile.bare_format and not has_cursors and not asks_for_more(query):
            wire_format = profile.bare_format
        else:
            wire_format = profile.formats[has_cursors, has_strings]
        return SessionRequest(
            wire_format,
            names,
            where,
            after=query.get("cursor"),
            wants_snapshot=wants_snapshot,
            conflates=query.get("latest", "0") != "0",
        )

    def _profile(self, query: QueryParams) -> Profile:
        selected = [one for one in self._profiles if one.parameter and one.parameter in query]
        return (selected or [one for one in self._profiles if one.parameter is None])[0]


async def open_channels(
    websocket: WebSocket,
    services: Services,
    request: SessionRequest,
    identity: Identity | None = None,
    subprotocol: str | None = None,
) -> None:
    """Admit a client of channels, and open its session."""
    if any("\0" in name for name in request.names):
        await refuse(websocket, 400, "no channel has a zero in its name")
        return
    changes = services.sessions.registry.changes
    try:
        who = identity or await services.handshake.identify(websocket)
        access = await services.authority.read_access(who, request.names)
    except AccessUndecided as error:
        await refuse(websocket, error.http_status, str(error))
        return
    topics = [t for name in request.names for t in requested_topics(name, request.where, access)]
    if has_too_many_combinations(topics):
        await refuse(websocket, 400, TOO_MANY_COMBINATIONS)
        return
    if (reason := await services.sessions.refuse_filters(topics)) is not None:
        await refuse(websocket, 400, reason)
        return

    def session_for(admitted: Admitted) -> ChannelSession:
        sources = websocket.state.sources
        return ChannelSession(admitted, services.sessions, sources, request, access, changes)

    await services.handshake.accept(websocket, session_for, who, subprotocol)


def asks_for_more(query: QueryParams) -> bool:
    """Return True if a client uses what the document of its own system does not have."""
    return any(name in query for name in OWN_PARAMETERS)


def parse_filter_parameter(text: str | None) -> Filter:
    """Return the filter in a URL. Raises `ValueError`, with what is wrong."""
    if text is None:
        return ()
    try:
        columns = filter_json(text)
    except (ValueError, RecursionError):
        raise ValueError("where must be a JSON object of columns and values") from None
    return parse_filter(columns)
