"""JSON responses."""

from __future__ import annotations

import orjson
from pydantic import BaseModel
from starlette.responses import Response

from brain.description.routes import Failure


def json_response(content: object, status_code: int = 200) -> Response:
    """Return JSON, indented for a person at a terminal; of a model, what was set in it."""
    if isinstance(content, BaseModel):
        content = content.model_dump(exclude_unset=True)
    return Response(
        orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status_code,
        {"cache-control": "no-store"},
        media_type="application/json",
    )


def error_response(error: str, status_code: int) -> Response:
    """Return the response to a request that fails."""
    return json_response(Failure(error=error), status_code)
