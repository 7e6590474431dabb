"""Publishing a message: `POST /api/brain/publish`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from brain.description.routes import DescribedRoute, Operation, Right
from brain.message.v1_client_frames import LONGEST_NAME
from brain.session.sources import Sources
from brain.web.requests import authenticate, authorize, exact_members, parse_body
from brain.web.responses import json_response
from brain.web.services import Services

# PostgreSQL has no text with a NUL.
Name = Annotated[str, Field(min_length=1, max_length=LONGEST_NAME, pattern=r"^[^\x00]*$")]


class Publication(BaseModel):
    """A message: what a `publish` frame of brain.v1 has."""

    model_config = ConfigDict(extra="forbid")

    channel: Name
    type: Name
    """The `type` of the message that subscribers get."""
    data: Any = None
    to: Name | None = None
    """The only user who gets it; without it, all subscribers."""


class Published(BaseModel):
    """The message is in the log."""

    txid: str
    """The id of its transaction, for `until`."""


PUBLISH = Operation(
    id="publish",
    summary="Publish a message on a channel",
    description="It needs a token with the channel in its claim `publish`.",
    method="POST",
    right=Right.TOKEN,
    body=Publication,
    responses={200: Published},
    errors=(401, 403, 413, 415, 422, 503),
)


def routes(services: Services) -> list[DescribedRoute]:
    """Return the endpoint, which publishes through the sources in the request's state."""

    async def publish(request: Request) -> Response:
        identity = await authenticate(request, services.authority)
        # Without any right, nothing is read of what it sends.
        authorize(identity, bool(identity.publishable))
        body = await parse_body(request, Publication, identity, services.authority)
        authorize(identity, identity.may_publish(body.channel))
        # As it was written: all digits of its numbers.
        data = (await exact_members(request)).get("data", "null")
        sources: Sources = request.state.sources
        txid = await sources.publish(body.channel, body.type, data, body.to)
        return json_response(Published(txid=str(txid)))

    return [DescribedRoute("/api/brain/publish", publish, PUBLISH)]
