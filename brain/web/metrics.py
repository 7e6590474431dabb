"""The metrics, on the port of the clients: for those with the token."""

from __future__ import annotations

import asyncio
import secrets

from pydantic import SecretStr
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from brain.description.routes import Content, DescribedRoute, Operation, Right
from brain.metrics.exposition import Exposition

METRICS = Operation(
    id="getMetrics",
    summary="Metrics of this Brain, for Prometheus",
    description="It needs the token of `BRAIN_METRICS_TOKEN`; without that setting it is missing.",
    responses={200: Content(media_type="text/plain")},
    errors=(401, 503),
    right=Right.TOKEN,
    schemes=("bearer",),
)


def routes(token: SecretStr | None, exposition: Exposition) -> list[DescribedRoute]:
    """Return the address; none without a token."""
    if token is None:
        return []
    wanted = token.get_secret_value().encode()

    async def metrics(request: Request) -> Response:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        is_right = secrets.compare_digest(given.strip().encode(), wanted)
        if scheme.lower() != "bearer" or not is_right:
            reason = "the token of BRAIN_METRICS_TOKEN is needed"
            raise HTTPException(401, reason, {"www-authenticate": "Bearer"})
        accept = request.headers.get("accept", "")
        # Not here: with many series it takes some milliseconds.
        try:
            page = await asyncio.to_thread(exposition.page, accept)
        except OSError as error:
            raise HTTPException(503, f"the metrics cannot be read: {error.strerror}") from error
        return Response(page.content, headers={"content-type": page.media_type})

    return [DescribedRoute("/metrics", metrics, METRICS)]
