from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, Field

from brain.description.attribute_docs import attribute_docs
from brain.description.schemas import schema_name, schemas_of
from brain.message import v1_frames
from brain.message.v1_client_frames import PingFrame
from brain.message.wire_model import Timestamp, WireModel
from brain.systems.channels import wire_format as channels


class Nested(WireModel):
    """A part."""

    name: str


class Sent(WireModel):
    """What Brain sends."""

    type: Literal["sent"] = "sent"
    nested: Nested
    """Another model."""
    user: str | None
    code: int | None = None
    """Why, if
    anything."""
    last: bool = False
    omitted: list[str] = Field(default_factory=list)
    at: Timestamp


class Longer(Sent):
    more: Any
    """Of the subclass."""


class Received(BaseModel):
    """What a client sends."""

    user: str | None = None
    many: Literal["a", "b"] = "a"


PREFIX = schema_name(__name__, "")


def schema_of(model: type[BaseModel]) -> Any:
    return schemas_of([model]).definitions[f"{PREFIX}{model.__name__}"]


def test_a_key_is_required_if_it_has_no_default_or_only_one_value() -> None:
    assert schema_of(Sent)["required"] == ["type", "nested", "user", "at"]


def test_what_is_left_out_without_a_value_is_never_null() -> None:
    properties = schema_of(Sent)["properties"]

    assert properties["code"] == {"type": "integer", "description": "Why, if\nanything."}
    assert properties["user"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert properties["last"] == {"type": "boolean", "default": False}


def test_a_later_version_may_send_more_keys_and_clients_may_send_no_others() -> None:
    found = schemas_of([Sent], [PingFrame]).definitions

    assert "additionalProperties" not in found[f"{PREFIX}Sent"]
    assert found["V1PingFrame"]["additionalProperties"] is False


def test_a_key_that_a_client_may_send_as_null_may_be_null() -> None:
    found = schemas_of([], [Received]).definitions[f"{PREFIX}Received"]

    assert found["properties"]["user"] == {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert found["properties"]["many"]["default"] == "a"
    assert "required" not in found


def test_docstrings_are_descriptions() -> None:
    found = schema_of(Longer)

    assert "description" not in found
    assert found["properties"]["more"]["description"] == "Of the subclass."
    assert found["properties"]["nested"]["description"] == "Another model."
    assert attribute_docs(Longer).keys() >= {"nested", "code", "more"}


def test_a_class_without_source_has_no_docstrings_of_attributes() -> None:
    assert attribute_docs(type("Made", (), {})) == {}


def test_a_timestamp_has_a_format() -> None:
    assert schema_of(Sent)["properties"]["at"] == {"type": "string", "format": "date-time"}


def test_a_name_tells_models_of_different_systems_apart() -> None:
    found = schemas_of([v1_frames.Error, channels.Error, Sent])

    assert found.references[v1_frames.Error] == {"$ref": "#/components/schemas/V1Error"}
    assert found.references[channels.Error] == {"$ref": "#/components/schemas/ChannelsError"}
    assert f"{PREFIX}Nested" in found.definitions
    assert all(schema["title"] == name for name, schema in found.definitions.items())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("brain.web.status", "Status"),
        ("brain.problems", "Status"),
        ("brain.systems.mission_control.health", "MissionControlStatus"),
        ("brain.systems.shared_tables.tasks.rows", "TasksStatus"),
        ("sixth.wire_format", "SixthStatus"),
        ("sixth", "SixthStatus"),
        ("brain.message.v1_frames", "V1Status"),
    ],
)
def test_the_name_of_a_model_depends_on_its_package(module: str, name: str) -> None:
    assert schema_name(module, "Status") == name


def test_two_models_with_the_same_name_are_an_error() -> None:
    other = type("Sent", (WireModel,), {"__module__": __name__, "__annotations__": {}})

    with pytest.raises(ValueError, match="two models are named"):
        schemas_of([Sent, other])
