"""The AsyncAPI document, the routes and the models of messages agree."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import Response
from starlette.routing import WebSocketRoute

from brain.description.asyncapi import asyncapi_document
from brain.description.routes import Conversation, DescribedRoute, Operation, Parameter
from brain.description.server_url import ServerUrl
from brain.message.v1_format import V1Format
from tests.description.documents import application, asyncapi
from tests.description.test_openapi import SYSTEMS
from tests.seeds.packages import Packages, installed

PARSER = Path(__file__).parent / "asyncapi_parser.cjs"
# Of a diagnostic: 0 is an error, 1 a warning, 2 a note, as that there is a newer version.
WARNING = 1


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Packages:
    if shutil.which("node") is None:
        pytest.skip("Node.js is not installed")
    return installed(tmp_path_factory.mktemp("packages"))


def parsed(packages: Packages, document: dict[str, Any]) -> tuple[list[Any], list[str]]:
    """Return the operations that AsyncAPI's own parser finds, and what it finds wrong."""
    done = subprocess.run(
        ("node", PARSER),
        input=json.dumps(document),
        env=packages.environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    texts = [one["text"] for one in found["diagnostics"] if one["severity"] <= WARNING]
    return found["operations"], texts


@pytest.mark.parametrize("systems", ["all", "none"])
def test_the_document_is_valid(packages: Packages, systems: str) -> None:
    document = asyncapi(application(SYSTEMS[systems]).routes)

    operations, wrong = parsed(packages, document)

    assert wrong == []
    assert sorted(operations) == sorted(
        [one["action"], name, len(one["messages"])] for name, one in document["operations"].items()
    )


def test_the_parser_finds_what_is_wrong(packages: Packages) -> None:
    document = asyncapi(application().routes)
    document["operations"]["v1Send"]["messages"][0]["$ref"] = "#/components/messages/Nothing"

    _, wrong = parsed(packages, document)

    assert any("v1Send" in text for text in wrong)


def stream() -> DescribedRoute:
    async def endpoint(request: object) -> Response:
        return Response()

    conversation = Conversation(
        id="stream",
        summary="A stream of events",
        sends=V1Format.sent_models,
        parameters=(Parameter(name="channel", description="The channel."),),
    )
    operation = Operation(id="get", summary="A stream", responses={200: None}, stream=conversation)
    return DescribedRoute("/stream", endpoint, operation)


@pytest.mark.parametrize("systems", SYSTEMS)
def test_every_websocket_is_described_and_every_description_is_of_a_websocket(
    systems: str,
) -> None:
    app = application(SYSTEMS[systems])
    channels = asyncapi(app.routes)["channels"].values()
    sockets = {route.path for route in app.routes if isinstance(route, WebSocketRoute)}

    assert {channel["address"] for channel in channels} == sockets | {"/sse"}


def test_the_parameters_of_every_address_are_described() -> None:
    for channel in asyncapi(application().routes)["channels"].values():
        assert list(channel.get("parameters", ())) == re.findall(r"\{(\w+)\}", channel["address"])


@pytest.mark.parametrize("name", ["Send", "Receive"])
def test_brain_v1_has_every_frame_in_its_direction(name: str) -> None:
    document = asyncapi(application([]).routes)
    listed = [one["$ref"] for one in document["operations"][f"v1{name}"]["messages"]]
    models = V1Format.sent_models if name == "Send" else V1Format.received_models

    assert listed == [f"#/channels/v1/messages/V1{model.__name__}" for model in models]


def test_what_a_system_adds_to_a_websocket_of_the_core_is_described_when_it_is_on() -> None:
    with_tasks = asyncapi(application(SYSTEMS["cecelia"]).routes)["channels"]
    without = asyncapi(application([]).routes)["channels"]
    with_agents = asyncapi(application(SYSTEMS["cloud_agents"]).routes)["channels"]

    assert with_tasks["ws"]["messages"].keys() - without["ws"]["messages"].keys() == {
        "TasksRun",
        "TasksRunTruncated",
    }
    assert "CloudAgentsNotification" in with_agents["wsToken"]["messages"]
    assert with_agents["wsToken"]["address"] == "/ws"
    assert "wsToken" not in without


def test_the_members_of_a_query_are_described() -> None:
    channels = asyncapi(application([]).routes)["channels"]

    assert channels["ws"]["bindings"]["ws"]["query"]["properties"].keys() == {
        *("channel", "where", "cursor", "snapshot", "latest", "numbers")
    }
    assert "query" not in channels["v1"]["bindings"]["ws"]


def test_a_stream_of_events_is_a_channel_over_http() -> None:
    document = asyncapi([stream()])

    assert document["servers"].keys() == {"http"}
    assert document["channels"]["stream"]["servers"] == [{"$ref": "#/servers/http"}]
    binding = document["operations"]["streamSend"]["bindings"]["http"]
    assert binding["method"] == "GET"
    assert binding["query"]["properties"].keys() == {"channel"}


@pytest.mark.parametrize("systems", SYSTEMS)
def test_every_message_and_every_schema_has_a_description(systems: str) -> None:
    components = asyncapi(application(SYSTEMS[systems]).routes)["components"]

    for name, message in components["messages"].items():
        assert message["summary"].endswith("."), name
        assert message["summary"] != "A message, or a part of one.", name
    assert [name for name, one in components["schemas"].items() if not one["description"]] == []


def test_messages_that_are_no_json_are_text() -> None:
    messages = asyncapi(application([]).routes)["components"]["messages"]

    assert [name for name, one in messages.items() if "contentType" in one] == ["AnyText"]


def test_the_server_is_that_of_a_url() -> None:
    routes = application([]).routes
    server = ServerUrl("example.org", is_secure=True, prefix="/brain")

    assert asyncapi_document(routes, server, needs_token=False)["servers"] == {
        "websocket": {"host": "example.org", "protocol": "wss", "pathname": "/brain"},
        "http": {"host": "example.org", "protocol": "https", "pathname": "/brain"},
    }


def test_a_token_is_needed_only_where_tokens_are_needed() -> None:
    routes = application().routes
    guarded, free = asyncapi(routes), asyncapi(routes, needs_token=False)

    tokens = [{"$ref": f"#/components/securitySchemes/{name}"} for name in ("bearer", "token")]
    assert guarded["servers"]["websocket"]["security"] == tokens
    assert tokens[0] in guarded["servers"]["http"]["security"]
    assert tokens[1] not in guarded["servers"]["http"]["security"]
    needing = {name for name, one in guarded["operations"].items() if "security" in one}
    assert needing == {"missionControlSend", "missionControlReceive"}
    assert "security" not in free["servers"]["websocket"]
    assert not any("security" in one for one in free["operations"].values())
