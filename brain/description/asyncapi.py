"""
The AsyncAPI document of an application.

Source: AsyncAPI Specification 3.0.0. What it calls the application is Brain: Brain sends, and it
receives what clients send.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, Literal, NamedTuple, get_args

from pydantic import BaseModel, RootModel
from starlette.routing import BaseRoute

import brain
from brain.description.openapi import SECURITY_SCHEMES
from brain.description.routes import (
    SCHEMES,
    Conversation,
    DescribedRoute,
    DescribedWebSocketRoute,
    Parameter,
    Right,
)
from brain.description.schemas import Schemas, schemas_of
from brain.description.server_url import ServerUrl

VERSION = "3.0.0"
INFO = (
    "What Brain sends to clients, and what they send to it. Brain is the application that this"
    " document describes: `send` is what it sends. A client ignores types, ops and keys that it"
    " does not know. The other addresses are in /openapi.json."
)
Protocol = Literal["ws", "http"]
SERVERS: Mapping[Protocol, str] = {"ws": "websocket", "http": "http"}
"""The names of the servers, by protocol."""


class Place(NamedTuple):
    """A conversation, and where it takes place."""

    path: str
    protocol: Protocol
    conversation: Conversation
    schemes: Sequence[str] = SCHEMES
    """Where the token may be."""


def places_of(routes: Iterable[BaseRoute]) -> list[Place]:
    """Return the conversations of the routes that describe themselves."""
    places = []
    for route in routes:
        if isinstance(route, DescribedWebSocketRoute):
            places += [Place(route.path, "ws", one) for one in route.conversations]
        elif isinstance(route, DescribedRoute) and route.operation.stream is not None:
            stream, schemes = route.operation.stream, route.operation.schemes
            places.append(Place(route.path, "http", stream, schemes))
    return places


def asyncapi_document(
    routes: Sequence[BaseRoute], server: ServerUrl, *, needs_token: bool
) -> dict[str, Any]:
    """
    Return the document of the routes that describe themselves.

    Unless `needs_token`, a token is needed nowhere.
    """
    places = places_of(routes)
    sent = [model for one in places for model in one.conversation.sends]
    received = [model for one in places for model in one.conversation.receives]
    schemas = schemas_of(sent, received)
    operations: dict[str, Any] = {}
    for place in places:
        operations |= operations_of(place, schemas, needs_token=needs_token)
    return {
        "asyncapi": VERSION,
        "info": {"title": "Brain", "version": brain.__version__, "description": INFO},
        "defaultContentType": "application/json",
        "servers": servers_of(routes, server, needs_token=needs_token),
        "channels": {one.conversation.id: channel(one, schemas) for one in places},
        "operations": operations,
        "components": {
            "schemas": schemas.definitions,
            "messages": {
                name_of(model, schemas): message(model, schemas)
                for model in dict.fromkeys([*sent, *received])
            },
            "securitySchemes": asyncapi_security_schemes(),
        },
    }


def servers_of(
    routes: Sequence[BaseRoute], server: ServerUrl, *, needs_token: bool
) -> dict[str, Any]:
    """Return a server for each protocol that is used."""
    found: dict[str, Any] = {}
    path = {"pathname": server.prefix} if server.prefix else {}
    for protocol, name in SERVERS.items():
        schemes = [place.schemes for place in places_of(routes) if place.protocol == protocol]
        if schemes:
            found[name] = {"host": server.host, "protocol": server.scheme(protocol)} | path
            if needs_token:
                found[name]["security"] = references(dict.fromkeys(chain.from_iterable(schemes)))
    return found


def references(schemes: Iterable[str]) -> list[dict[str, str]]:
    return [{"$ref": f"#/components/securitySchemes/{name}"} for name in schemes]


def channel(place: Place, schemas: Schemas) -> dict[str, Any]:
    conversation = place.conversation
    models = [*conversation.sends, *conversation.receives]
    found: dict[str, Any] = {
        "address": place.path,
        "title": conversation.summary,
        "servers": [{"$ref": f"#/servers/{SERVERS[place.protocol]}"}],
        "messages": {
            name_of(model, schemas): {"$ref": f"#/components/messages/{name_of(model, schemas)}"}
            for model in models
        },
    }
    if conversation.description:
        found["description"] = conversation.description
    in_path = [one for one in conversation.parameters if one.place == "path"]
    if in_path:
        found["parameters"] = {one.name: {"description": one.description} for one in in_path}
    if place.protocol == "ws":
        found["bindings"] = {"ws": request_binding(conversation, "0.1.0")}
    return found


def operations_of(place: Place, schemas: Schemas, *, needs_token: bool) -> dict[str, Any]:
    """Return what Brain does at an address: it sends, and it may receive."""
    conversation = place.conversation
    found = {}
    for action, models in (("send", conversation.sends), ("receive", conversation.receives)):
        if models:
            path = f"#/channels/{conversation.id}"
            found[f"{conversation.id}{action.capitalize()}"] = operation(
                action, path, [name_of(model, schemas) for model in models]
            )
    for one in found.values():
        if place.protocol == "http":
            one["bindings"] = {"http": request_binding(conversation, "0.3.0")}
        if conversation.right is Right.TOKEN and needs_token:
            one["security"] = references(place.schemes)
    return found


def operation(action: str, path: str, names: Iterable[str]) -> dict[str, Any]:
    return {
        "action": action,
        "channel": {"$ref": path},
        "messages": [{"$ref": f"{path}/messages/{name}"} for name in names],
    }


def request_binding(conversation: Conversation, version: str) -> dict[str, Any]:
    """Return what begins a conversation: a GET, and the members of its query."""
    in_query = [one for one in conversation.parameters if one.place == "query"]
    found: dict[str, Any] = {"method": "GET", "bindingVersion": version}
    if in_query:
        properties = {one.name: query_member(one) for one in in_query}
        found["query"] = {"type": "object", "properties": properties}
        if required := [one.name for one in in_query if one.is_required]:
            found["query"]["required"] = required
    return found


def query_member(parameter: Parameter) -> dict[str, Any]:
    return {**parameter.schema, "description": parameter.description}


def message(model: type[BaseModel], schemas: Schemas) -> dict[str, Any]:
    summary, _, more = (inspect.getdoc(model) or "").partition("\n\n")
    found = {"name": wire_name(model), "summary": summary}
    if more:
        found["description"] = more
    if issubclass(model, RootModel):  # text, and no JSON object
        found["contentType"] = "text/plain"
    return {**found, "payload": schemas.references[model]}


def wire_name(model: type[BaseModel]) -> str:
    """Return the `type` or the `op` of a message; the name of its model if it has several."""
    for key in ("op", "type"):
        field = model.model_fields.get(key)
        if field is not None and len(values := get_args(field.annotation)) == 1:
            return str(values[0])
    return model.__name__


def name_of(model: type[BaseModel], schemas: Schemas) -> str:
    """Return the name of a model in the document."""
    reference: str = schemas.references[model]["$ref"]
    return reference.rpartition("/")[2]


def asyncapi_security_schemes() -> dict[str, Any]:
    return {
        name: {**scheme, "type": "httpApiKey"} if scheme["type"] == "apiKey" else scheme
        for name, scheme in SECURITY_SCHEMES.items()
    }
