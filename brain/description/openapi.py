"""
The OpenAPI document of an application.

Source: OpenAPI Specification 3.1.1.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel
from starlette.routing import BaseRoute

import brain
from brain.description.routes import (
    Content,
    DescribedRoute,
    Failure,
    Operation,
    Parameter,
    Right,
)
from brain.description.schemas import Schemas, schemas_of

VERSION = "3.1.1"
INFO = (
    "The HTTP addresses of Brain, which pushes PostgreSQL row changes to WebSocket clients. What is"
    " sent over WebSockets and in event streams is in /asyncapi.json."
)
SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "For clients that cannot send a header.",
    },
    "ticket": {
        "type": "apiKey",
        "in": "query",
        "name": "ticket",
        "description": "For streams of events, where no header can be sent.",
    },
}
ERRORS = {
    400: "The request, or a parameter of it, is malformed.",
    401: "A token is needed, or the token is not valid.",
    403: "The token does not allow this; or the page or the host is not one that is allowed.",
    404: "There is no such thing.",
    413: "The body of the request, or what was asked for, is too large.",
    415: "The content type of the body is not application/json.",
    422: "The body is not as the schema says.",
    429: "There are too many.",
    503: "The database cannot be reached, or cannot answer at the moment: try again later.",
}
# Any request may be refused, or fail: so is every status that an operation does not list.
DEFAULT = "The request was refused, or failed."


def openapi_document(
    routes: Iterable[BaseRoute], server: str, *, needs_token: bool
) -> dict[str, Any]:
    """
    Return the document of the routes that describe themselves.

    `server` is the URL of `/`, or relative to that of the document. Unless `needs_token`, a token
    is needed nowhere.
    """
    described = [route for route in routes if isinstance(route, DescribedRoute)]
    operations = [route.operation for route in described]
    schemas = schemas_of(
        [Failure, *(m for one in operations for m in models(one.responses.values()))],
        models(one.body for one in operations),
    )
    paths: dict[str, Any] = {}
    for route in described:
        found = operation_object(route.operation, schemas, needs_token=needs_token)
        paths.setdefault(route.path, {})[route.operation.method.lower()] = found
    statuses = sorted({status for one in operations for status in one.errors})
    return {
        "openapi": VERSION,
        "info": {"title": "Brain", "version": brain.__version__, "description": INFO},
        "servers": [{"url": server}],
        "tags": [{"name": name} for name in sorted({one.tag for one in operations})],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions,
            "responses": {
                "Failure": failure(DEFAULT, schemas),
                **{response_name(one): failure(ERRORS[one], schemas, one) for one in statuses},
            },
            "securitySchemes": SECURITY_SCHEMES,
        },
    }


def models(found: Iterable[type[BaseModel] | Content | None]) -> list[type[BaseModel]]:
    return [one for one in found if isinstance(one, type)]


def operation_object(
    operation: Operation, schemas: Schemas, *, needs_token: bool
) -> dict[str, Any]:
    responses = {
        str(status): response(status, body, schemas) for status, body in operation.responses.items()
    }
    errors = {
        str(status): {"$ref": f"#/components/responses/{response_name(status)}"}
        for status in operation.errors
    }
    found: dict[str, Any] = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.tag],
        "responses": responses | errors | {"default": {"$ref": "#/components/responses/Failure"}},
        "security": security(operation, needs_token=needs_token),
    }
    if operation.description:
        found["description"] = operation.description
    if operation.parameters:
        found["parameters"] = [parameter_object(one) for one in operation.parameters]
    if operation.body is not None:
        content = {"application/json": {"schema": schemas.references[operation.body]}}
        found["requestBody"] = {"required": True, "content": content}
    return found


def response(
    status: int, body: type[BaseModel] | Content | None, schemas: Schemas
) -> dict[str, Any]:
    found: dict[str, Any] = {"description": HTTPStatus(status).phrase}
    if isinstance(body, Content):
        found["content"] = {body.media_type: {"schema": body.schema}}
    elif body is not None:
        found["content"] = {"application/json": {"schema": schemas.references[body]}}
    return found


def failure(description: str, schemas: Schemas, status: int | None = None) -> dict[str, Any]:
    content: dict[str, Any] = {"application/json": {"schema": schemas.references[Failure]}}
    if status == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        # Starlette's own answer, if the request declares the length of its body.
        content["text/plain"] = {"schema": {"type": "string"}}
    return {"description": description, "content": content}


def response_name(status: int) -> str:
    """Return the name of the response with an error: its reason phrase, as one word."""
    return re.sub(r"\W", "", HTTPStatus(status).phrase.title())


def security(operation: Operation, *, needs_token: bool) -> list[dict[str, list[str]]]:
    """Return the alternatives, of which a client has to have one; `{}` is none."""
    if operation.right is Right.NONE:
        return []
    tokens: list[dict[str, list[str]]] = [{name: []} for name in operation.schemes]
    return tokens if operation.right is Right.TOKEN and needs_token else [*tokens, {}]


def parameter_object(parameter: Parameter) -> dict[str, Any]:
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.is_required,
        "description": parameter.description,
        "schema": parameter.schema,
    }
