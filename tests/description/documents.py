"""The documents of applications, and values that are as their schemas say."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from jsonschema import Draft202012Validator
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from brain.app import build_app
from brain.description.asyncapi import asyncapi_document
from brain.description.openapi import openapi_document
from brain.description.server_url import ServerUrl
from brain.settings import Settings
from brain.system import System, installed_systems
from tests.transport.served import NO_DATABASE

HERE = ServerUrl("localhost:5221")


def application(systems: Iterable[System] | None = None) -> Starlette:
    """Return an application with all systems, or with those given."""
    chosen = installed_systems().values() if systems is None else systems
    return build_app(NO_DATABASE, Settings(), list(chosen))


def openapi(routes: Iterable[BaseRoute], *, needs_token: bool = True) -> dict[str, Any]:
    return openapi_document(routes, "http://localhost:5221", needs_token=needs_token)


def asyncapi(routes: Iterable[BaseRoute], *, needs_token: bool = True) -> dict[str, Any]:
    return asyncapi_document(list(routes), HERE, needs_token=needs_token)


class Closed:
    """
    A document whose schemas allow no property that they do not list.

    Clients have to ignore such properties; in tests, each is one that was not described.
    """

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = copy.deepcopy(document)
        for schema in self.document["components"]["schemas"].values():
            if "properties" in schema:
                schema.setdefault("additionalProperties", False)

    def problems(self, schema: dict[str, Any], value: Any) -> list[str]:
        """Return what is wrong with a value."""
        whole = {**schema, "components": self.document["components"]}
        return [error.message for error in Draft202012Validator(whole).iter_errors(value)]

    def sent(self, channel: str, message: Any) -> list[str]:
        """Return the names of the messages of a channel that `message` is one of."""
        operation = self.document["operations"][f"{channel}Send"]
        names = [one["$ref"].rpartition("/")[2] for one in operation["messages"]]
        messages = self.document["components"]["messages"]
        return [name for name in names if not self.problems(messages[name]["payload"], message)]
