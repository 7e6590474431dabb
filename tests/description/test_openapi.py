"""The OpenAPI document and the routes agree."""

from __future__ import annotations

import re
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from brain.description.routes import DescribedRoute, Operation
from brain.system import installed_systems
from tests.description.documents import application, openapi

SYSTEMS = {
    "all": tuple(installed_systems().values()),
    "none": (),
    **{name: (system,) for name, system in installed_systems().items()},
}


def operations(document: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the operations of a document, by method and path."""
    return {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def routes_of(app: Starlette) -> set[str]:
    """Return the routes of an application, apart from those that only say: use a WebSocket."""
    sockets = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}
    return {
        f"{method} {route.path}"
        for route in app.routes
        if isinstance(route, Route) and (route.path not in sockets or route.path == "/")
        for method in (route.methods or set()) - {"HEAD"}
    }


@pytest.mark.parametrize("systems", SYSTEMS)
def test_every_route_is_described_and_every_description_is_of_a_route(systems: str) -> None:
    app = application(SYSTEMS[systems])

    assert operations(openapi(app.routes)).keys() == routes_of(app)


@pytest.mark.parametrize("needs_token", [True, False])
@pytest.mark.parametrize("systems", SYSTEMS)
def test_the_document_is_valid(systems: str, needs_token: bool) -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator is not installed"
    )
    document = openapi(application(SYSTEMS[systems]).routes, needs_token=needs_token)

    validator.validate(document, cls=validator.OpenAPIV31SpecValidator)


def test_the_validator_finds_what_is_wrong() -> None:
    validator = pytest.importorskip(
        "openapi_spec_validator", reason="openapi-spec-validator is not installed"
    )
    document = openapi(application().routes)
    operations(document)["GET /api/{feed}"]["parameters"] = []

    with pytest.raises(Exception, match="feed"):
        validator.validate(document, cls=validator.OpenAPIV31SpecValidator)


def test_the_parameters_of_every_path_are_described() -> None:
    for name, operation in operations(openapi(application().routes)).items():
        found = [one["name"] for one in operation.get("parameters", ()) if one["in"] == "path"]
        assert found == re.findall(r"\{(\w+)\}", name), name


def test_every_operation_has_its_own_id_and_a_summary() -> None:
    found = list(operations(openapi(application().routes)).values())

    assert len({one["operationId"] for one in found}) == len(found)
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", one["operationId"]) for one in found)
    assert all(one["summary"] for one in found)


def test_every_schema_has_a_description() -> None:
    schemas = openapi(application().routes)["components"]["schemas"]

    assert [name for name, schema in schemas.items() if not schema.get("description")] == []


def test_a_system_has_only_its_own_routes_described() -> None:
    cecelia = openapi(application(SYSTEMS["cecelia"]).routes)

    assert "/api/brain/tasks" in cecelia["paths"]
    assert {tag["name"] for tag in cecelia["tags"]} == {"brain", "cecelia"}
    assert not any(name.startswith("Channels") for name in cecelia["components"]["schemas"])


def test_a_token_is_needed_only_where_tokens_are_needed() -> None:
    tokens: list[dict[str, list[str]]] = [{"bearer": []}, {"token": []}]
    app = application()
    guarded = operations(openapi(app.routes))
    free = operations(openapi(app.routes, needs_token=False))

    assert guarded["POST /api/ws/broadcast"]["security"] == tokens
    assert free["POST /api/ws/broadcast"]["security"] == [*tokens, {}]
    # A channel may be public.
    assert guarded["GET /api/{feed}"]["security"] == [*tokens, {}]
    assert guarded["GET /healthz"]["security"] == []


def test_a_route_that_does_not_describe_itself_is_left_out() -> None:
    async def endpoint(request: object) -> Response:
        return Response()

    operation = Operation(id="get", summary="Nothing", responses={204: None})
    found = openapi([Route("/a", endpoint), DescribedRoute("/b", endpoint, operation)])

    assert found["paths"].keys() == {"/b"}
    assert found["paths"]["/b"]["get"]["responses"]["204"] == {"description": "No Content"}
