"""JSON responses."""

from __future__ import annotations

import orjson
from starlette.responses import Response


def json_response(content: object, status_code: int = 200) -> Response:
    """Return JSON, indented for a person at a terminal."""
    return Response(
        orjson.dumps(content, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE),
        status_code,
        {"cache-control": "no-store"},
        media_type="application/json",
    )
