"""The section brain.v1 of docs/protocol.md and the models of the frames agree."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, TypeAdapter

from brain.message.error_codes import ADVICE, ErrorCode
from brain.message.v1_client_frames import AnyClientFrame
from brain.message.v1_frames import AnyServerFrame, ControlFrame, DataFrame
from tests.description.documents import Closed, application, asyncapi

PROTOCOL = (Path(__file__).parent.parent / "docs" / "protocol.md").read_text()
SECTION = PROTOCOL.partition("\n## brain.v1\n")[2].partition("\n## ")[0]
CLIENT_SECTION = SECTION.partition("### What a client sends")[2].partition("\n### ")[0]
SERVER_SECTION = SECTION.replace(CLIENT_SECTION, "")


def models(union: Any) -> list[type[BaseModel]]:
    """Return the members of an annotated union."""
    return list(get_args(get_args(union)[0]))


def name_of(model: type[BaseModel]) -> str:
    """Return the `type` or `op` of a model's frames."""
    field = model.model_fields.get("op") or model.model_fields["type"]
    return str(get_args(field.annotation)[0])


def examples(section: str) -> list[str]:
    blocks = re.findall(r"^```json\n(.*?)^```", section, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


def keys_by_name(section: str) -> dict[str, set[str]]:
    """Return the keys in all examples of a frame, by its `op` or `type`."""
    keys: dict[str, set[str]] = defaultdict(set)
    for line in examples(section):
        frame = json.loads(line)
        keys[("op " + frame["op"]) if "op" in frame else frame["type"]] |= frame.keys()
    return keys


@pytest.mark.parametrize("line", examples(CLIENT_SECTION))
def test_every_example_of_a_client_frame_is_one(line: str) -> None:
    TypeAdapter(AnyClientFrame).validate_json(line)


@pytest.mark.parametrize("line", examples(SERVER_SECTION))
def test_every_example_of_a_server_frame_is_one(line: str) -> None:
    TypeAdapter(AnyServerFrame).validate_json(line)


def test_every_client_frame_has_an_example_with_all_its_keys() -> None:
    shown = keys_by_name(CLIENT_SECTION)

    assert shown == {name_of(model): set(model.model_fields) for model in models(AnyClientFrame)}


def test_every_server_frame_has_an_example_with_all_its_keys() -> None:
    shown = keys_by_name(SERVER_SECTION)
    expected = {name_of(model): set(model.model_fields) for model in models(ControlFrame)}
    expected |= {"op " + name_of(model): set(model.model_fields) for model in models(DataFrame)}
    for name in ("op insert", "op delete"):
        expected[name].remove("omitted")  # shown with an update

    assert shown == expected


def test_the_table_of_error_codes_lists_every_code_and_no_other() -> None:
    table = SERVER_SECTION.partition("| code | when |")[2]
    listed = re.findall(r"^\| `([a-z_]+)` \|", table, re.MULTILINE)

    assert listed == list(get_args(ErrorCode))
    assert listed == list(ADVICE)


@pytest.fixture(scope="module")
def described() -> Closed:
    """The AsyncAPI document."""
    return Closed(asyncapi(application([]).routes))


def messages(described: Closed, operation: str) -> dict[str, dict[str, Any]]:
    """Return the messages of an operation in the document, by `type` or `op`."""
    components = described.document["components"]["messages"]
    listed = described.document["operations"][operation]["messages"]
    found = [components[one["$ref"].rpartition("/")[2]] for one in listed]
    return {one["name"]: one for one in found}


def test_the_asyncapi_document_names_every_frame(described: Closed) -> None:
    client = [name_of(model) for model in models(AnyClientFrame)]
    server = [name_of(one) for union in (ControlFrame, DataFrame) for one in models(union)]
    over_websocket, in_stream = messages(described, "v1Send"), messages(described, "eventsSend")

    assert list(messages(described, "v1Receive")) == client
    assert [name for name in server if name not in over_websocket] == ["closed"]
    assert [name for name in server if name not in in_stream] == [
        *("published", "authenticated", "presence", "until", "pong", "error")
    ]
    assert over_websocket.keys() | in_stream.keys() == set(server)


@pytest.mark.parametrize("line", examples(SERVER_SECTION) + examples(CLIENT_SECTION))
def test_every_example_of_a_frame_is_as_the_asyncapi_document_says(
    described: Closed, line: str
) -> None:
    frame = json.loads(line)
    sent = messages(described, "v1Send") | messages(described, "eventsSend")
    found = messages(described, "v1Receive") if line in examples(CLIENT_SECTION) else sent
    payload = found[frame.get("op") or frame["type"]]["payload"]

    assert described.problems(payload, frame) == []
    assert described.problems(payload, {**frame, "unknown": 1}) != []
